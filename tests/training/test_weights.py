import hashlib
import struct

import pytest
import torch
from torch import nn

from pocketfleet.errors import InputError
from pocketfleet.training.feature_scaling import FeatureScaling
from pocketfleet.training.weights import Weights, all_finite, model_weights, tensors_sha256


class Drifting(nn.Module):
    """Keeps a mean of its inputs that each training pass replaces, and a table that nothing changes."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.ones(1))
        self.register_buffer("average", torch.zeros(1))
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.average = 0.5 * self.average + 0.5 * x.mean(0)
        return (x - self.average) * self.weight * self.table


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(2, 2), nn.Linear(2, 2)
        self.up.weight = self.down.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.up(self.down(x))
        return out


def test_a_model_falls_into_trainable_buffers_and_frozen() -> None:
    model = nn.Sequential(FeatureScaling(3), nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    model[3].weight.requires_grad_(False)
    weights = model_weights(model, torch.arange(6.0).reshape(2, 3))
    # Batch-norm's affine part is learnt, its statistics change on the side, the scaling and a switched-off weight stay.
    assert list(weights.trainable) == ["1.bias", "1.weight", "2.bias", "2.weight", "3.bias"]
    assert list(weights.buffers) == ["2.num_batches_tracked", "2.running_mean", "2.running_var"]
    assert list(weights.frozen) == ["0.mean", "0.scale", "3.weight"]


def test_names_are_sorted_not_in_order_of_definition() -> None:
    model = nn.ModuleDict({"z": nn.Linear(1, 1), "a": nn.Linear(1, 1)})
    model.forward = lambda x: model["z"](model["a"](x))  # type: ignore[method-assign]
    assert list(model_weights(model, torch.ones(1, 1)).trainable) == ["a.bias", "a.weight", "z.bias", "z.weight"]


def test_a_buffer_that_the_model_replaces_is_a_buffer() -> None:
    weights = model_weights(Drifting(), torch.ones(2, 1))
    assert (list(weights.buffers), list(weights.frozen)) == (["average"], ["table"])


def test_statistics_are_found_in_evaluation_mode_too_and_the_mode_is_kept() -> None:
    for training in (True, False):
        model = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1)).train(training)
        weights = model_weights(model, torch.tensor([[1.0], [2.0]]))
        assert list(weights.buffers) == ["1.num_batches_tracked", "1.running_mean", "1.running_var"]
        assert model.training is training
        assert model[1].training is training


def test_statistics_are_found_even_where_a_batch_happens_to_equal_them() -> None:
    # The mean of a batch of zeros is the running mean's first value, 0; torch's batch_norm counts no version either.
    model = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 1))
    weights = model_weights(model, torch.zeros(3, 2))
    assert list(weights.buffers) == ["0.num_batches_tracked", "0.running_mean", "0.running_var"]


def test_looking_changes_neither_the_model_nor_its_statistics() -> None:
    model = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    weights = model_weights(model, torch.tensor([[1.0], [2.0]]))
    for name, value in before.items():
        assert torch.equal(model.state_dict()[name], value)
        assert torch.equal((weights.trainable | weights.buffers)[name], value)
    assert weights.buffers["1.num_batches_tracked"].item() == 0


def test_weights_are_detached_contiguous_copies() -> None:
    model = nn.Linear(2, 3)
    model.weight = nn.Parameter(torch.arange(6.0).reshape(2, 3).T)
    assert not model.weight.is_contiguous()
    value = model_weights(model, torch.ones(1, 2)).trainable["weight"]
    assert value.is_contiguous()
    assert not value.requires_grad
    value.zero_()
    assert model.weight.sum().item() == 15.0  # 0 + 1 + ... + 5


def test_a_contiguous_tensor_is_copied_too() -> None:
    model = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1), FeatureScaling(1))
    weights = model_weights(model, torch.tensor([[1.0], [2.0]]))
    everything = weights.trainable | weights.buffers | weights.frozen
    own = dict(model.named_parameters()) | dict(model.named_buffers())
    assert everything.keys() == own.keys()
    assert all(value.data_ptr() != own[name].data_ptr() for name, value in everything.items())


def test_a_tied_weight_is_listed_once() -> None:
    weights = model_weights(Tied(), torch.ones(1, 2))
    assert list(weights.trainable) == ["down.bias", "down.weight", "up.bias"]


def test_a_model_that_does_not_take_the_batch_is_the_callers_fault() -> None:
    with pytest.raises(InputError, match=r"examples, a batch of shape \(2, 3\) and type torch.float32: ") as info:
        model_weights(nn.Linear(4, 1), torch.ones(2, 3))
    assert isinstance(info.value.__cause__, RuntimeError)


def test_the_mode_is_restored_after_a_failure() -> None:
    model = nn.Linear(4, 1).eval()
    with pytest.raises(InputError):
        model_weights(model, torch.ones(2, 3))
    assert not model.training


@pytest.mark.parametrize("model", [nn.Identity(), nn.Linear(3, 1).requires_grad_(False)])
def test_nothing_to_train(model: nn.Module) -> None:
    with pytest.raises(InputError, match="no parameter that requires a gradient: nothing to train"):
        model_weights(model, torch.ones(2, 3))


def test_with_frozen_replaces_some_and_leaves_the_original() -> None:
    one, two = torch.ones(1), torch.full((1,), 2.0)
    weights = Weights(trainable={"w": one}, buffers={}, frozen={"a": one, "b": one})
    changed = weights.with_frozen({"b": two})
    assert {name: value.item() for name, value in changed.frozen.items()} == {"a": 1.0, "b": 2.0}
    assert changed.trainable is weights.trainable
    assert weights.frozen["b"] is one


def test_with_frozen_rejects_names_that_are_not_frozen() -> None:
    one = torch.ones(1)
    weights = Weights(trainable={"w": one}, buffers={"s": one}, frozen={"a": one})
    with pytest.raises(ValueError, match=r"^not frozen weights of this model: \['b', 's', 'w'\]$"):
        weights.with_frozen({"w": one, "a": one, "b": one, "s": one})


def test_with_frozen_rejects_another_shape() -> None:
    weights = Weights(trainable={}, buffers={}, frozen={"mean": torch.zeros(3)})
    with pytest.raises(ValueError, match=r"^frozen weight 'mean' must be of shape \(3,\), got \(1,\)$"):
        weights.with_frozen({"mean": torch.zeros(1)})


def test_sha256_is_over_sorted_names_and_little_endian_bytes() -> None:
    tensors = {
        "b": torch.tensor([[1.0, -2.0], [0.5, 3.0]], dtype=torch.float32),
        "a": torch.tensor(258, dtype=torch.int64),
    }
    # Python strings sort as bytes here; "<q" and "<4f" are little-endian int64 and float32, in row-major order.
    data = b"a" + struct.pack("<q", 258) + b"b" + struct.pack("<4f", 1.0, -2.0, 0.5, 3.0)
    assert tensors_sha256(tensors) == hashlib.sha256(data).hexdigest()
    assert tensors_sha256({}) == hashlib.sha256(b"").hexdigest()


def test_sha256_ignores_memory_order_and_sees_every_bit() -> None:
    value = torch.arange(6.0).reshape(2, 3)
    assert tensors_sha256({"w": value.T.contiguous().T}) == tensors_sha256({"w": value})
    # -0.0 equals 0.0 as a number and differs as bits.
    assert tensors_sha256({"w": torch.tensor([-0.0])}) != tensors_sha256({"w": torch.tensor([0.0])})
    assert tensors_sha256({"w": value}) != tensors_sha256({"v": value})


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_all_finite_finds_one_bad_value_in_the_last_tensor(bad: float) -> None:
    fine = torch.zeros(3)
    assert all_finite({"a": fine, "b": fine, "count": torch.tensor(3)})
    assert not all_finite({"a": fine, "b": torch.tensor([0.0, bad])})
