"""The length of an update is of all of its tensors together."""

import numpy as np
import torch

from pocketfleet.training.update_norm import update_norms


def test_the_norm_is_of_all_tensors_as_one_vector() -> None:
    delta = {
        "a": torch.tensor([[3.0, 0.0], [0.0, 0.0]]),
        "b": torch.tensor([[[4.0]], [[12.0]]], dtype=torch.float64),
        "scalar": torch.tensor([0.0, 5.0]),
    }
    # sqrt(9 + 16) and sqrt(144 + 25).
    assert update_norms(delta).tolist() == [5.0, 13.0]


def test_one_update_does_not_change_another_ones_bits() -> None:
    values = torch.linspace(-1.0, 3.0, 7 * 1000).reshape(7, 1000) ** 3
    together = update_norms({"w": values})
    alone = np.concatenate([update_norms({"w": values[row : row + 1]}) for row in range(7)])
    np.testing.assert_array_equal(together, alone)


def test_large_float32_values_do_not_overflow() -> None:
    # 1e30 squared is beyond float32.
    assert update_norms({"w": torch.full((1, 4), 1e30)})[0] == np.float64(2.0) * np.float32(1e30)
