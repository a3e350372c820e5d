"""Which weights are trained, and that nothing else about a model changes."""

import copy

import pytest
import torch
from torch import nn

from pocketfleet.errors import InputError
from pocketfleet.training.adaptation import Adaptation, LoraLinear, adapted
from pocketfleet.training.draws import draw_key, normal
from pocketfleet.training.dropout import Uniforms, drawn
from pocketfleet.training.examples import Examples
from pocketfleet.training.model_task import ModelTask
from pocketfleet.training.task import NaturalTask, Task, initial_model
from pocketfleet.training.train_step import StepSettings, TrainState, TrainStep, hyper_tensors
from pocketfleet.training.weights import Weights, model_weights


def noise(*shape: int) -> torch.Tensor:
    """Standard normal ``float32`` numbers."""
    return torch.from_numpy(normal(draw_key(3, "x"), torch.Size(shape).numel())).to(torch.float32).reshape(shape)


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 5))
        self.head = nn.Linear(5, 2, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.head(self.body(x))
        return output


WEIGHTS = ["body.0.bias", "body.0.weight", "body.1.bias", "body.1.weight", "body.3.bias", "body.3.weight"]


def trainable(model: nn.Module) -> list[str]:
    return sorted(name for name, value in model.named_parameters() if value.requires_grad)


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        (("head.*",), ["head.weight"]),
        (("*.bias",), ["body.0.bias", "body.1.bias", "body.3.bias"]),
        (("body.[01].*", "head.weight"), [*WEIGHTS[:4], "head.weight"]),
        (("*",), [*WEIGHTS, "head.weight"]),
    ],
)
def test_patterns_freeze_everything_else(patterns: tuple[str, ...], names: list[str]) -> None:
    model = Classifier()
    # Also what the model itself had frozen is trained if named.
    model.requires_grad_(False)
    Adaptation(trainable=patterns).apply(model)
    assert trainable(model) == names
    weights = model_weights(model, noise(4, 3))
    assert sorted(weights.trainable) == names
    assert sorted(weights.frozen) == sorted({*WEIGHTS, "head.weight"} - set(names))
    # Statistics go on moving in a frozen body, as in PyTorch.
    assert sorted(weights.buffers) == ["body.1.num_batches_tracked", "body.1.running_mean", "body.1.running_var"]


def test_no_adaptation_is_what_the_model_says() -> None:
    model = Classifier()
    model.head.requires_grad_(False)
    Adaptation().apply(model)
    assert trainable(model) == WEIGHTS


def test_a_pattern_without_a_match_lists_the_names() -> None:
    with pytest.raises(
        InputError, match=r"no parameter of the model is named 'tail\.\*'; its .* are body\.0\.weight, "
    ):
        Adaptation(trainable=("head.*", "tail.*")).apply(Classifier())
    many = nn.Sequential(*(nn.Linear(1, 1) for _ in range(10)))
    with pytest.raises(InputError, match=r"5\.weight, 5\.bias and 8 more$"):
        Adaptation(trainable=("tail.*",)).apply(many)


def test_a_case_differs() -> None:
    with pytest.raises(InputError, match=r"named 'Head\.\*'"):
        Adaptation(trainable=("Head.*",)).apply(Classifier())


def test_lora_starts_from_the_model_as_it_is() -> None:
    model = Classifier()
    before = copy.deepcopy(model)
    Adaptation(lora_rank=2).apply(model)
    x = noise(4, 3)
    assert torch.equal(model.eval()(x), before.eval()(x))
    assert torch.equal(model.train()(x), before.train()(x))
    assert trainable(model) == [
        *("body.0.lora_a", "body.0.lora_b", "body.3.lora_a", "body.3.lora_b", "head.lora_a", "head.lora_b")
    ]
    # A [rank, in], B [out, rank].
    shapes = {name: tuple(value.shape) for name, value in model.named_parameters() if "lora" in name}
    assert (shapes["body.0.lora_a"], shapes["body.0.lora_b"]) == ((2, 3), (5, 2))
    assert (shapes["head.lora_a"], shapes["head.lora_b"]) == ((2, 5), (2, 2))
    assert all(value.any() == ("lora_a" in name) for name, value in model.named_parameters() if "lora" in name)


def test_lora_keeps_the_names_and_values_of_weights() -> None:
    model = Classifier()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    Adaptation(lora_rank=1).apply(model)
    after = model.state_dict()
    assert {name for name in after if "lora" not in name} == before.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_what_lora_computes() -> None:
    # Weight [[1, 2]], A [[3, 4]], B [[5]], bias 10, x (1, 1): 3 + 5 * 7 + 10 = 48.
    layer = LoraLinear(nn.Linear(2, 1), rank=1)
    values = {"weight": [[1.0, 2.0]], "bias": [10.0], "lora_a": [[3.0, 4.0]], "lora_b": [[5.0]]}
    layer.load_state_dict({name: torch.tensor(value) for name, value in values.items()})
    assert layer(torch.ones(2)).item() == 48.0


def test_lora_trains_and_the_rest_stays() -> None:
    model = Classifier()
    Adaptation(lora_rank=2).apply(model)
    x, y = noise(6, 3), noise(6, 2)
    settings = StepSettings()
    step = TrainStep(model, lambda output, target: (output - target).square().mean(dim=1), settings)
    state = TrainState.start(model_weights(model, x), settings)
    losses = []
    for _ in range(30):
        loss, state = step(state, x, y, hyper_tensors(settings, {"learning_rate": 0.1}))
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert state.trainable["head.lora_b"].any()
    assert torch.equal(state.frozen["head.weight"], model.head.weight)


def test_patterns_and_lora_together() -> None:
    model = Classifier()
    Adaptation(trainable=("body.1.*",), lora_rank=1).apply(model)
    assert [name for name in trainable(model) if "lora" not in name] == ["body.1.bias", "body.1.weight"]
    assert len(trainable(model)) == 2 + 6


class Tied(nn.Module):
    """Embedding and output share one weight, and one linear layer is used in two places."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.inner = nn.Sequential(nn.Linear(4, 4), nn.Tanh())
        self.again = self.inner[0]
        self.output = nn.Linear(4, 7, bias=False)
        self.output.weight = self.embedding.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.output(self.again(self.inner(self.embedding(tokens))))
        return output


def test_tied_weights_stay_tied() -> None:
    model = Tied()
    before, tokens = copy.deepcopy(model), torch.arange(7)
    Adaptation(lora_rank=1).apply(model)
    assert model.output.weight is model.embedding.weight
    assert torch.equal(model(tokens), before(tokens))
    # One layer in two places has one pair of matrices.
    assert model.again is model.inner[0]
    assert trainable(model) == ["inner.0.lora_a", "inner.0.lora_b", "output.lora_a", "output.lora_b"]


def test_attentions_own_projection_is_left_alone() -> None:
    model = nn.TransformerEncoderLayer(4, 2, dim_feedforward=6, dropout=0.0, batch_first=True)
    before, x = copy.deepcopy(model), noise(2, 5, 4)
    Adaptation(lora_rank=1).apply(model)
    assert trainable(model) == ["linear1.lora_a", "linear1.lora_b", "linear2.lora_a", "linear2.lora_b"]
    assert type(model.self_attn.out_proj) is type(before.self_attn.out_proj)
    torch.testing.assert_close(model.train()(x), before.train()(x))
    # In evaluation mode torch has a fused path, which would read weights past LoRA.
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "lora" in name:
                value.fill_(0.5)
        with Uniforms(drawn(0)):
            trained = model.train()(x)
        torch.testing.assert_close(model.eval()(x), trained)


@pytest.mark.parametrize("model", [nn.Sequential(nn.Conv2d(1, 2, 3)), nn.Linear(3, 2)], ids=["none", "itself"])
def test_lora_without_a_linear_layer_inside(model: nn.Module) -> None:
    with pytest.raises(InputError, match=r"this one has none: train a part by patterns .* or wrap the layer"):
        Adaptation(lora_rank=1).apply(model)


def test_a_rank_below_0() -> None:
    with pytest.raises(InputError, match=r"the rank of LoRA must be 1 or more, or 0 for none; got -1"):
        Adaptation(lora_rank=-1)


class Users(ModelTask):
    """A task whose examples belong to users."""

    def device_examples(self, device: int) -> Examples:
        return self.train_examples().take(torch.tensor([device]))


def task() -> Users:
    return Users(Classifier(), nn.CrossEntropyLoss(), (noise(4, 3), torch.arange(4) % 2))


def test_an_adapted_task_is_the_same_but_for_its_model() -> None:
    inner = task()
    outer = adapted(inner, Adaptation(trainable=("head.*",), lora_rank=1))
    assert isinstance(outer, Task)
    assert isinstance(outer, NaturalTask)
    assert torch.equal(outer.device_examples(2).x, inner.train_examples().x[2:3])
    assert (outer.name, outer.loss, outer.metrics) == (inner.name, inner.loss, inner.metrics)
    assert outer.train_examples() is inner.train_examples()
    assert len(trainable(outer.make_model())) == 1 + 6
    assert trainable(inner.make_model()) == [*WEIGHTS, "head.weight"]
    with pytest.raises(AttributeError, match="colour"):
        outer.colour  # type: ignore[attr-defined]  # noqa: B018


def test_a_task_without_users_does_not_get_any() -> None:
    plain = ModelTask(Classifier(), nn.CrossEntropyLoss(), (noise(4, 3), torch.arange(4) % 2))
    assert not isinstance(adapted(plain, Adaptation(lora_rank=1)), NaturalTask)


def test_no_adaptation_is_the_task_itself() -> None:
    inner = task()
    assert adapted(inner, Adaptation()) is inner


def test_loras_matrices_come_from_the_seed() -> None:
    outer = adapted(task(), Adaptation(lora_rank=1))

    def weights(seed: int) -> Weights:
        return model_weights(initial_model(outer, seed=seed), noise(4, 3))

    assert torch.equal(weights(0).trainable["head.lora_a"], weights(0).trainable["head.lora_a"])
    assert not torch.equal(weights(0).trainable["head.lora_a"], weights(1).trainable["head.lora_a"])
