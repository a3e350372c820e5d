"""Which module was running when an error passed."""

import pytest
import torch
from torch import nn

from pocketfleet.training.running_module import error_advice, module_text, returning_module, running_module


class Failing(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError(f"no {x.shape}")


class Catching(nn.Module):
    """Goes on where what is inside fails."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Failing()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        try:
            return self.inner(x)
        except RuntimeError:
            return x


def test_the_innermost_module_is_named_after_an_error() -> None:
    model = nn.Sequential(nn.ReLU(), nn.Sequential(nn.ReLU(), Failing()))
    with running_module(model) as running:
        assert running.text(outside="nothing") == "nothing"
        with pytest.raises(RuntimeError):
            model(torch.ones(1))
        assert running.path == "1.1"
        assert running.text(outside="nothing") == "layer 1.1 (Failing)"


def test_an_error_that_the_model_caught_leaves_no_trace() -> None:
    model, changes = nn.Sequential(Catching(), nn.ReLU()), []
    with running_module(model, on_change=changes.append) as running:
        model(torch.ones(1))
        assert running.path is None
    assert changes == ["", "0", "0.inner", "", "1", "", None]
    model(torch.ones(1))
    assert len(changes) == 7


def test_where_an_output_comes_from() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.GRU(2, 3)))
    assert returning_module(model, torch.ones(1, 2)) == "layer 1.0 (GRU)"
    assert returning_module(nn.GRU(2, 3), torch.ones(1, 2)) == "the model itself (GRU)"


def test_names() -> None:
    model = nn.Sequential(nn.ReLU())
    assert module_text(model, "") == "the model itself (Sequential)"
    assert module_text(model, "0") == "layer 0 (ReLU)"
    assert module_text(model, "5.x") == "layer 5.x"


def test_advice() -> None:
    assert "put several inputs" in error_advice(TypeError("forward() missing 1 required positional argument: 'b'"))
    assert "GroupNorm" in error_advice(ValueError("Expected more than 1 value per channel when training"))
    assert error_advice(ValueError("else")) == ""
