"""Masks made of given numbers: what they do to values and gradients, where they are drawn, and what is refused."""

import subprocess
import sys
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pocketfleet.errors import InputError
from pocketfleet.training.draws import draw_key, normal
from pocketfleet.training.dropout import Uniforms, drawn, step_seeds

Shapes = list[tuple[int, ...]]


def noise(*shape: int) -> torch.Tensor:
    """Standard normal ``float32`` numbers."""
    return torch.from_numpy(normal(draw_key(3, "x"), torch.Size(shape).numel())).to(torch.float32).reshape(shape)


def given(*values: float) -> Callable[[int, Sequence[int]], torch.Tensor]:
    """A source of the same few numbers at every site."""
    return lambda _, shape: torch.tensor(values).reshape(tuple(shape))


def masks_of(model: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> Shapes:
    """The shapes that a forward pass asks for, in order."""
    shapes: Shapes = []

    def source(site: int, shape: Sequence[int]) -> torch.Tensor:
        assert site == len(shapes)
        shapes.append(tuple(shape))
        return drawn(0)(site, shape)

    with Uniforms(source) as uniforms:
        model(x)
    assert uniforms.sites == len(shapes)
    return shapes


class Recurrent(nn.Module):
    """Two recurrent layers with dropout between them."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 4, num_layers=2, dropout=p, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.lstm(x)[0]
        return output


class SelfAttention(nn.Module):
    def __init__(self, p: float) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, dropout=p, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.attention(x, x, x, need_weights=False)[0]
        return output


def encoder_layer(p: float) -> nn.Module:
    return nn.TransformerEncoderLayer(4, 2, dim_feedforward=6, dropout=p, batch_first=True)


def functional(p: float) -> nn.Module:
    class Functional(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.dropout(x, p, self.training)

    return Functional()


# Each with the shape of an input and the shapes of its masks; a batch of 2, 5 places, 2 heads.
LAYERS: dict[str, tuple[Callable[[float], nn.Module], tuple[int, ...], Shapes]] = {
    "F.dropout": (functional, (2, 3), [(2, 3)]),
    "nn.Dropout": (nn.Dropout, (2, 3), [(2, 3)]),
    "nn.Dropout2d": (nn.Dropout2d, (2, 3, 4, 4), [(2, 3, 1, 1)]),
    "nn.AlphaDropout": (nn.AlphaDropout, (2, 3), [(2, 3)]),
    "nn.MultiheadAttention": (SelfAttention, (2, 5, 4), [(2, 2, 5, 5)]),
    "nn.TransformerEncoderLayer": (encoder_layer, (2, 5, 4), [(2, 2, 5, 5), (2, 5, 4), (2, 5, 6), (2, 5, 4)]),
    "nn.LSTM": (Recurrent, (2, 5, 3), [(2, 5, 4)]),
}
every_layer = pytest.mark.parametrize(("make", "shape", "masks"), LAYERS.values(), ids=LAYERS)


@every_layer
def test_where_masks_are_drawn(make: Callable[[float], nn.Module], shape: tuple[int, ...], masks: Shapes) -> None:
    # The layers of an LSTM hold the places first, whatever the order of its input.
    found = [tuple(sorted(mask)) for mask in masks_of(make(0.25).train(), noise(*shape))]
    assert found == [tuple(sorted(mask)) for mask in masks]


@every_layer
def test_nothing_is_drawn_in_evaluation_mode_nor_at_0(
    make: Callable[[float], nn.Module], shape: tuple[int, ...], masks: Shapes
) -> None:
    assert masks_of(make(0.25).eval(), noise(*shape)) == []
    assert masks_of(make(0.0).train(), noise(*shape)) == []


@every_layer
def test_a_seed_settles_every_bit(make: Callable[[float], nn.Module], shape: tuple[int, ...], masks: Shapes) -> None:
    model, x = make(0.5).train(), noise(*shape)

    def output(seed: int) -> torch.Tensor:
        with Uniforms(drawn(seed)), torch.no_grad():
            return model(x)  # type: ignore[no-any-return]

    assert torch.equal(output(1), output(1))
    assert not torch.equal(output(1), output(2))


def test_torchs_own_generator_is_left_alone() -> None:
    model = encoder_layer(0.5).train()
    before = torch.get_rng_state()
    masks_of(model, noise(2, 5, 4))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("make", [nn.Dropout, functional])
def test_values_and_gradients_have_one_mask(make: Callable[[float], nn.Module]) -> None:
    # Kept where the number is 0.25 or more, and then scaled by 1 / (1 - 0.25).
    x = torch.tensor([[3.0, -6.0, 9.0], [12.0, 1.5, 0.75]], requires_grad=True)
    with Uniforms(given(0.0, 0.25, 0.2499, 0.9999, 0.5, 0.1)):
        output = make(0.25).train()(x)
    assert output.tolist() == [[0.0, -8.0, 0.0], [16.0, 2.0, 0.0]]
    (gradient,) = torch.autograd.grad(output, x, torch.tensor([[1.0, 3.0, 5.0], [6.0, 9.0, 11.0]]))
    assert gradient.tolist() == [[0.0, 4.0, 0.0], [8.0, 12.0, 0.0]]


def test_the_operator_of_programs_agrees() -> None:
    # Tracing meets native_dropout where eager PyTorch meets bernoulli_.
    x, numbers = noise(4, 5), drawn(9)(0, (4, 5))
    with Uniforms(lambda *_: numbers):
        ordinary = F.dropout(x, 0.3)
        native, keep = torch.native_dropout(x, 0.3, train=True)
    assert torch.equal(keep, numbers >= 0.3)
    torch.testing.assert_close(native, ordinary, rtol=2e-7, atol=0.0)
    assert torch.equal(native == 0.0, ordinary == 0.0)
    with Uniforms(lambda *_: numbers) as uniforms:
        untouched, everything = torch.native_dropout(x, 0.3, train=False)
    assert torch.equal(untouched, x)
    assert everything.all()
    assert uniforms.sites == 0


def test_whole_channels_are_dropped() -> None:
    x = torch.ones(1, 3, 2, 2)
    with Uniforms(given(0.4, 0.5, 0.9)):
        output = nn.Dropout2d(0.5).train()(x)
    assert output.sum(dim=(2, 3)).tolist() == [[0.0, 8.0, 8.0]]
    assert output.unique().tolist() == [0.0, 2.0]


@pytest.mark.parametrize("native", [False, True])
def test_at_1_everything_is_dropped(native: bool) -> None:
    x = noise(3, 4).requires_grad_()
    with Uniforms(drawn(0)):
        output = torch.native_dropout(x, 1.0, train=True)[0] if native else nn.Dropout(1.0).train()(x)
    assert not output.any()
    assert not torch.autograd.grad(output.sum(), x)[0].any()


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_so_many_are_dropped(p: float) -> None:
    count = 100_000
    with Uniforms(drawn(4)):
        output = F.dropout(torch.ones(count), p)
    # Five standard deviations of a share of 100,000 draws.
    assert float((output == 0).double().mean()) == pytest.approx(p, abs=5 * (p * (1 - p) / count) ** 0.5)
    assert output.unique().tolist() == pytest.approx([0.0, 1 / (1 - p)], rel=1e-6)


def test_sites_are_independent() -> None:
    first, second = drawn(6)(0, (100_000,)) >= 0.5, drawn(6)(1, (100_000,)) >= 0.5
    # Kept by both: a quarter, within five standard deviations.
    assert float((first & second).double().mean()) == pytest.approx(0.25, abs=5 * (0.1875 / 100_000) ** 0.5)
    # What a site draws depends neither on those before it nor on the shape's dimensions.
    assert torch.equal(drawn(6)(1, (10, 10)).flatten(), drawn(6)(1, (100,)))


# Numerators over 2**24: SplitMix64's upper 24 bits, for whoever draws them in another language.
GOLDEN = {
    (0, 0): [10352695, 7464536, 1673979, 16196545],
    (7, 0): [10374830, 2129508, 14864647, 8698220],
    (7, 1): [3624859, 4346024, 2608666, 2485838],
    (2**63, 3): [16440236, 1097004, 932152, 10290771],
}


@pytest.mark.parametrize(("seed", "site"), GOLDEN)
def test_numbers_that_other_languages_draw_too(seed: int, site: int) -> None:
    values = drawn(seed)(site, (2, 2))
    assert (values.double() * 2**24).flatten().tolist() == GOLDEN[seed, site]
    assert values.dtype == torch.float32
    assert values.shape == (2, 2)


def test_numbers_in_plain_arithmetic() -> None:
    word, golden = 2**64 - 1, 0x9E3779B97F4A7C15

    def mix(z: int) -> int:
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & word
        z = (z ^ z >> 27) * 0x94D049BB133111EB & word
        return z ^ z >> 31

    purpose = 0xCBF29CE484222325
    for byte in b"dropout_site":
        purpose = (purpose ^ byte) * 0x100000001B3 & word
    key = mix(mix(7 + purpose & word) + 2 * golden & word)  # site 1
    assert [mix(key + i * golden & word) >> 40 for i in (1, 2, 3, 4)] == GOLDEN[7, 1]


def test_the_seeds_of_steps() -> None:
    assert step_seeds(7, 4)[3] == 9944026322779933001
    assert len({seed for batch in range(50) for seed in step_seeds(batch, 50)}) == 2500


@pytest.mark.parametrize(
    ("draw", "operator"),
    [
        (lambda x: x + torch.rand(x.shape), r"aten\.rand\.default"),
        (lambda x: x + torch.randn_like(x), r"aten\.randn_like\.default"),
        (torch.bernoulli, r"aten\.bernoulli\.default"),
        (lambda x: x[torch.randperm(2)], r"aten\.randperm\.default"),
        (lambda x: F.rrelu(x, training=True), r"aten\.rrelu_with_noise\.default"),
    ],
    ids=["rand", "randn_like", "bernoulli", "randperm", "rrelu"],
)
def test_whatever_else_draws_is_refused_by_name(draw: Callable[[torch.Tensor], torch.Tensor], operator: str) -> None:
    with (
        pytest.raises(InputError, match=rf"draws random numbers by {operator}, which is no dropout: .*take that layer"),
        Uniforms(drawn(0)),
    ):
        draw(torch.full((2,), 0.5))


def test_a_step_does_not_bring_in_torchs_compiler() -> None:
    program = (
        "import sys, torch\n"
        "from pocketfleet.training.dropout import Uniforms, drawn\n"
        "with Uniforms(drawn(0)) as uniforms: torch.nn.Dropout()(torch.ones(3))\n"
        "assert uniforms.sites == 1\n"
        "assert 'torch._dynamo' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
