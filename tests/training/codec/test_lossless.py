import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketfleet.training.codec import LosslessCodec
from pocketfleet.training.codec.lossless import tensors_bytes
from pocketfleet.training.draws import draw_key, numbers
from pocketfleet.training.update import Update, UpdateError, tensors_to_bytes
from pocketfleet.training.weights import Tensors

CODEC = LosslessCodec()
DTYPES = (
    *(torch.int64, torch.float64, torch.float32, torch.int32, torch.bfloat16, torch.float16),
    *(torch.int16, torch.int8, torch.uint8, torch.bool),
)
# What JSON escapes (quotes, backslash, control characters), what it does not, and letters of one to four UTF-8 bytes.
names = st.text('ab.0"\\/\n\t\0\x1f\x7f\u00e9\u4e2d\U0001f600', min_size=1, max_size=5)
shapes = st.lists(st.integers(0, 6), max_size=3)
trees = st.dictionaries(names, st.tuples(st.sampled_from(DTYPES), shapes), max_size=6)


def bits(dtype: torch.dtype, shape: list[int], *, seed: int) -> torch.Tensor:
    """A tensor of any bits, not-a-number and minus zero among them."""
    value = torch.zeros(shape, dtype=dtype)
    raw = numbers(draw_key(seed, "bits"), value.numel() * dtype.itemsize) % np.uint64(2 if dtype == torch.bool else 256)
    value.reshape(-1).view(torch.uint8).copy_(torch.from_numpy(raw.astype(np.uint8)))
    return value


def raw_bytes(tensor: torch.Tensor) -> bytes:
    return tensor.reshape(-1).view(torch.uint8).numpy().tobytes()


def filled(tree: dict[str, tuple[torch.dtype, list[int]]]) -> Tensors:
    return {name: bits(dtype, shape, seed=seed) for seed, (name, (dtype, shape)) in enumerate(tree.items())}


def halves(tensors: Tensors) -> tuple[Tensors, Tensors]:
    """Every second tensor, and the others: what is learnt and what is a buffer."""
    items = list(tensors.items())
    return dict(items[::2]), dict(items[1::2])


@given(tree=trees)
@settings(deadline=None)
def test_size_is_known_from_names_types_and_shapes(tree: dict[str, tuple[torch.dtype, list[int]]]) -> None:
    tensors = filled(tree)
    assert tensors_bytes(tensors) == len(tensors_to_bytes(tensors))
    trainable, buffers = halves(tensors)
    buffers, extra = halves(buffers)
    update = Update(trainable, buffers, extra)
    assert CODEC.encoded_bytes(update) == len(CODEC.encode(update))


@pytest.mark.parametrize("first", DTYPES)
@pytest.mark.parametrize("second", DTYPES)
def test_size_follows_the_librarys_order_of_types(first: torch.dtype, second: torch.dtype) -> None:
    # Offsets pass from two to three digits within the first tensor laid out: another order has other lengths.
    tensors = {"a": bits(first, [2], seed=0), "b": bits(second, [100], seed=1), "c": bits(first, [3], seed=2)}
    assert tensors_bytes(tensors) == len(tensors_to_bytes(tensors))


def test_size_of_a_tiny_update() -> None:
    like = Update({"w": torch.zeros(2)}, {"n": torch.tensor(3)})
    header = (
        '{"n":{"dtype":"I64","shape":[],"data_offsets":[0,8]},"w":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}}'
    )
    # 8 bytes of length, the header's 107 padded to 112, 8 bytes of int64 and 2 * 4 of float32.
    assert len(header) == 107
    assert CODEC.encoded_bytes(like) == 8 + 112 + 16


@given(tree=trees)
@settings(deadline=None)
def test_decoding_gives_the_same_bits(tree: dict[str, tuple[torch.dtype, list[int]]]) -> None:
    trainable, others = halves(filled(tree))
    buffers, extra = halves(others)
    # What else is reported may go by the names of weights.
    extra |= {name: value.clone() for name, value in trainable.items()}
    update = Update(trainable, buffers, extra)
    # The receiver knows names, types and shapes, not values.
    like = Update(
        **{
            group: {name: torch.zeros_like(value) for name, value in tensors.items()}
            for group, tensors in update.groups().items()
        }
    )
    decoded = CODEC.decode(CODEC.encode(update), like)
    for got, sent in zip(decoded.groups().values(), update.groups().values(), strict=True):
        assert list(got) == list(sent)
        for name, value in sent.items():
            assert (got[name].dtype, got[name].shape) == (value.dtype, value.shape)
            assert raw_bytes(got[name]) == raw_bytes(value)


def test_encoding_is_canonical_safetensors_without_metadata() -> None:
    update = Update({"w": torch.tensor([1.0])}, {"n": torch.tensor(3)})
    data = CODEC.encode(update)
    assert data == tensors_to_bytes({"n": torch.tensor(3), "w": torch.tensor([1.0])})
    assert b"__metadata__" not in data


def test_it_calls_itself_lossless() -> None:
    assert (CODEC.name, CODEC.lossless) == ("lossless", True)


W, N = torch.tensor([[1.0, 2.0]]), torch.tensor(3)
LIKE = Update({"w": W}, {"n": N})


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        ({"w": W}, "the update lacks tensor 'n'"),
        ({"n": N}, "the update lacks tensor 'w'"),
        ({"w": W, "n": N, "x": W.clone()}, "the update has an unknown tensor 'x'"),
        ({"w": W, "n": N, "f": torch.ones(1)}, "the update has an unknown tensor 'f'"),
        ({"w": W.T, "n": N}, "tensor 'w' must be torch.float32 of shape (1, 2), got torch.float32 of shape (2, 1)"),
        ({"w": W[0], "n": N}, "tensor 'w' must be torch.float32 of shape (1, 2), got torch.float32 of shape (2,)"),
        (
            {"w": W.double(), "n": N},
            "tensor 'w' must be torch.float32 of shape (1, 2), got torch.float64 of shape (1, 2)",
        ),
        ({"w": W, "n": N.float()}, "tensor 'n' must be torch.int64 of shape (), got torch.float32 of shape ()"),
    ],
)
def test_what_does_not_fit_the_model_is_rejected(sent: Tensors, message: str) -> None:
    with pytest.raises(UpdateError, match=f"^{re.escape(message)}$"):
        CODEC.decode(tensors_to_bytes(sent), LIKE)


def test_what_else_is_reported_goes_under_a_name_of_its_own() -> None:
    update = Update({"w": W}, {}, {"w": -W})
    assert CODEC.encode(update) == tensors_to_bytes({"w": W, "extra/w": -W})
    with pytest.raises(UpdateError, match=r"^the update lacks tensor 'extra/w'$"):
        CODEC.decode(tensors_to_bytes({"w": W}), update)


@pytest.mark.parametrize(
    "update", [Update({"w": W}, {"w": N}), Update({"extra/w": W}, {}, {"w": W}), Update({}, {"extra/w": N}, {"w": W})]
)
def test_two_tensors_of_one_name_cannot_be_told_apart(update: Update) -> None:
    for call in (CODEC.encode, CODEC.encoded_bytes):
        with pytest.raises(ValueError, match=r"^an update holds two tensors of the name '(extra/)?w'$"):
            call(update)


@pytest.mark.parametrize("cut", [1, 8, 60])
def test_truncated_bytes_are_rejected(cut: int) -> None:
    data = CODEC.encode(Update({"w": W}, {"n": N}))
    with pytest.raises(UpdateError, match=rf"^{len(data) - cut} bytes that are no safetensors: "):
        CODEC.decode(data[:-cut], LIKE)
