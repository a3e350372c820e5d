"""House prices of 506 Boston census tracts from 13 features: the task of the demo that this project grew out of.

The table is Harrison and Rubinfeld's (1978, "Hedonic housing prices and the demand for clean air", Journal of
Environmental Economics and Management 5), as shipped by mlxtend. Its column ``B`` is a function of the share of
Black residents, built on the authors' contested assumption about how race moves prices; it is kept by default so that
figures compare with published ones, and ``leave_out_b = true`` drops it.
"""

import torch
from torch import nn

from pocketfleet.training.draws import draw_key, permutation
from pocketfleet.training.examples import Examples
from pocketfleet.training.feature_scaling import FeatureScaling
from pocketfleet.training.weights import Tensors

__all__ = ["BostonTask", "make_task"]

# Column of ``B`` in mlxtend's table (CRIM ZN INDUS CHAS NOX RM AGE DIS RAD TAX PTRATIO B LSTAT).
B_COLUMN = 11
# One tract in five is held back for testing, the usual share for this table.
TEST_RATIO = 0.2


class BostonTask:
    """Price in thousands of dollars; squared error; multilayer perceptron 13-32-24-16-1 on standardised features."""

    def __init__(self, *, leave_out_b: bool, split_seed: int) -> None:
        from mlxtend.data import boston_housing_data

        x, y = boston_housing_data()
        features = torch.tensor(x, dtype=torch.float32)
        if leave_out_b:
            features = torch.cat([features[:, :B_COLUMN], features[:, B_COLUMN + 1 :]], dim=1)
        self.name = "boston"
        self._all = Examples(features, torch.tensor(y, dtype=torch.float32).unsqueeze(1))
        self._order = torch.from_numpy(permutation(draw_key(split_seed, "boston_test_split"), len(self._all)))
        self._tests = int(len(self._all) * TEST_RATIO)

    def make_model(self) -> nn.Module:
        """13-32-24-16-1 with rectifiers, the shape of the original demo, behind the fleet's feature scaling."""
        features = self._all.x.shape[1]
        return nn.Sequential(
            FeatureScaling(features),
            nn.Linear(features, 32),
            nn.ReLU(),
            nn.Linear(32, 24),
            nn.ReLU(),
            nn.Linear(24, 16),
            nn.ReLU(),
            nn.Linear(16, 1),
        )

    def loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Squared error an example, ``[batch]``."""
        return (output - target).square().mean(dim=1)

    def metrics(self, output: torch.Tensor, target: torch.Tensor) -> Tensors:
        """``mse``: squared error; ``mae``: absolute error, in thousands of dollars."""
        error = output - target
        return {"mse": error.square().mean(dim=1), "mae": error.abs().mean(dim=1)}

    def train_examples(self) -> Examples:
        """405 tracts."""
        return self._all.take(self._order[self._tests :])

    def test_examples(self) -> Examples:
        """101 tracts that no device holds."""
        return self._all.take(self._order[: self._tests])


def make_task(*, leave_out_b: bool = False, split_seed: int = 0) -> BostonTask:
    """The task.

    Args:
        leave_out_b: drop the contested column ``B``; 12 features remain.
        split_seed: which tracts are held back for testing.
    """
    return BostonTask(leave_out_b=leave_out_b, split_seed=split_seed)
