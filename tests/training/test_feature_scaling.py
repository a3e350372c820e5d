import numpy as np
import pytest
import torch
from torch import nn

from pocketfleet.training.draws import draw_key, normal
from pocketfleet.training.feature_scaling import FeatureScaling, FeatureSums, frozen_scaling, has_scaling


def features(rows: int) -> torch.Tensor:
    """``float32 [rows, 3]`` with means 5, -200 and 0 and deviations 0.1, 30 and 1."""
    scores = normal(draw_key(1, "features", np.arange(rows)), 3)
    return torch.from_numpy(scores * [0.1, 30.0, 1.0] + [5.0, -200.0, 0.0]).to(torch.float32)


def test_before_the_sums_arrive_inputs_pass_unchanged() -> None:
    x = features(4)
    assert torch.equal(FeatureScaling(3)(x), x)


def test_scaling_takes_the_last_dimension_apart() -> None:
    layer = FeatureScaling(2)
    layer.mean.copy_(torch.tensor([1.0, 10.0]))
    layer.scale.copy_(torch.tensor([2.0, 5.0]))
    # (3 - 1) / 2 = 1 and (0 - 10) / 5 = -2; (1 - 1) / 2 = 0 and (20 - 10) / 5 = 2.
    x = torch.tensor([[[3.0, 0.0]], [[1.0, 20.0]]])
    assert layer(x).tolist() == [[[1.0, -2.0]], [[0.0, 2.0]]]


def test_nothing_of_it_is_learnt() -> None:
    layer = FeatureScaling(2)
    assert list(layer.parameters()) == []
    assert [name for name, _ in layer.named_buffers()] == ["mean", "scale"]


def test_sums_of_a_small_table() -> None:
    sums = FeatureSums.of(torch.tensor([[1.0, 2.0], [3.0, 6.0]]))
    # Totals 1 + 3 and 2 + 6; squares 1 + 9 and 4 + 36.
    assert (sums.count, sums.total.tolist(), sums.squares.tolist()) == (2, [4.0, 8.0], [10.0, 40.0])
    assert (sums.total.dtype, sums.squares.dtype) == (torch.float64, torch.float64)
    mean, scale = sums.mean_and_scale()
    # Means 4 / 2 and 8 / 2; variances 10 / 2 - 4 = 1 and 40 / 2 - 16 = 4.
    assert (mean.tolist(), scale.tolist()) == ([2.0, 4.0], [1.0, 2.0])
    assert (mean.dtype, scale.dtype) == (torch.float32, torch.float32)


def test_every_dimension_but_the_last_counts_as_rows() -> None:
    sums = FeatureSums.of(torch.ones(2, 5, 3))
    assert (sums.count, sums.total.tolist()) == (10, [10.0, 10.0, 10.0])


def test_sums_of_devices_give_the_pooled_mean_and_deviation() -> None:
    x = features(90)
    parts = [FeatureSums.of(part) for part in x.split([1, 50, 39])]
    mean, scale = (parts[0] + parts[1] + parts[2]).mean_and_scale()
    pooled = x.numpy().astype(np.float64)
    np.testing.assert_allclose(mean.numpy(), pooled.mean(axis=0), rtol=1e-6)
    # numpy's default is the population's deviation (divided by n).
    np.testing.assert_allclose(scale.numpy(), pooled.std(axis=0), rtol=1e-6)


def test_sums_of_float32_are_taken_in_float64() -> None:
    # 2**24 + 1 is no float32: a float32 sum would stay at 2**24.
    sums = FeatureSums.of(torch.tensor([[2.0**24], [1.0]]))
    assert sums.total.item() == 2.0**24 + 1


@pytest.mark.parametrize("value", [0.0, 0.1, 396.9, -1e6])
@pytest.mark.parametrize("rows", [7, 101, 1000])
def test_a_constant_feature_is_shifted_but_not_scaled(value: float, rows: int) -> None:
    # The sums of 1,000 equal squares are rounded: 0.1 and 396.9 then have variances of 2e-16 of the mean square.
    mean, scale = FeatureSums.of(torch.full((rows, 1), value)).mean_and_scale()
    assert scale.item() == 1.0
    assert mean.item() == torch.tensor(value).item()


def test_a_small_deviation_beside_a_large_mean_is_kept() -> None:
    # 1000 +- 0.25: variance 0.0625 is 6e-8 of the mean square, far above the floor for rounding (1e-12).
    _, scale = FeatureSums.of(torch.tensor([[999.75], [1000.25]])).mean_and_scale()
    assert scale.item() == 0.25


def test_without_examples_nothing_is_scaled() -> None:
    mean, scale = FeatureSums.of(torch.zeros(0, 2)).mean_and_scale()
    assert (mean.tolist(), scale.tolist()) == ([0.0, 0.0], [1.0, 1.0])


def test_has_scaling_looks_into_the_model() -> None:
    assert has_scaling(FeatureScaling(3))
    assert has_scaling(nn.Sequential(nn.Flatten(), nn.Sequential(FeatureScaling(3), nn.Linear(3, 1))))
    assert not has_scaling(nn.Sequential(nn.Linear(3, 1)))


def test_frozen_scaling_standardises_the_fleets_examples() -> None:
    x = features(90)
    model = nn.Sequential(nn.Identity(), FeatureScaling(3))
    values = frozen_scaling(model, (FeatureSums.of(part) for part in x.split([40, 50])))
    assert sorted(values) == ["1.mean", "1.scale"]
    scaled = torch.func.functional_call(model, values, (x,))
    # Mean 0 and deviation 1 up to the rounding of float32 (6e-8) at -200 / 30 deviations, in the mean of 90 rows.
    np.testing.assert_allclose(scaled.mean(0).numpy(), 0.0, atol=1e-5)
    np.testing.assert_allclose(scaled.std(0, correction=0).numpy(), 1.0, rtol=1e-5)


def test_every_scaling_layer_gets_its_own_copy_under_its_full_name() -> None:
    class Twin(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = FeatureScaling(1), FeatureScaling(1)

    values = frozen_scaling(Twin(), [FeatureSums.of(torch.tensor([[1.0], [3.0]]))])
    # Mean (1 + 3) / 2 = 2, deviation 1.
    expected = {"left.mean": 2.0, "left.scale": 1.0, "right.mean": 2.0, "right.scale": 1.0}
    assert {name: value.item() for name, value in values.items()} == expected
    values["left.mean"].zero_()
    assert values["right.mean"].item() == 2.0


def test_a_scaling_layer_alone_is_named_without_a_dot() -> None:
    assert sorted(frozen_scaling(FeatureScaling(1), [FeatureSums.of(torch.ones(2, 1))])) == ["mean", "scale"]


def test_no_device_no_scaling() -> None:
    with pytest.raises(ValueError, match=r"^sums must hold at least one device$"):
        frozen_scaling(FeatureScaling(1), [])
