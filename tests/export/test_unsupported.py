"""Operators and their places are put into one sentence."""

import torch
from torch import nn

from pocketfleet.export.layers import LOSS, OPTIMIZER
from pocketfleet.export.unsupported import Unsupported, UnsupportedError, operator_name

MODEL = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.ReLU(), nn.Tanh()))


def sentence(*found: Unsupported) -> str:
    return UnsupportedError(found, problem="which is missing").sentence(MODEL)


def test_places_with_the_same_operators_share_a_clause() -> None:
    found = [Unsupported(operator=name, layer=layer) for layer in ("1.0", "1.1") for name in ("aten.a", "aten.b")]
    expected = "layer 1.0 (ReLU) and layer 1.1 (Tanh) use aten.a and aten.b; layer 0 (Linear) uses aten.c"
    more = Unsupported(operator="aten.c", layer="0")
    assert sentence(*found, *found, more, more) == f"{expected}, which is missing"


def test_what_is_no_layer() -> None:
    operator = "aten.a"
    for layer, place in (
        ("", "the model itself (Sequential)"),
        (LOSS, "the loss"),
        (OPTIMIZER, "the optimizer"),
        (None, "the model"),
        ("gone.2", "layer gone.2"),
    ):
        assert sentence(Unsupported(operator=operator, layer=layer)) == f"{place} uses aten.a, which is missing"


def test_many_places_are_counted() -> None:
    model = nn.Sequential(*[nn.Tanh() for _ in range(9)])
    error = UnsupportedError(
        [Unsupported(operator="aten.a", layer=str(place)) for place in range(9)], problem="which is missing"
    )
    assert error.sentence(model).endswith("and layer 4 (Tanh) and 4 more use aten.a, which is missing")


def test_only_gradients() -> None:
    forward, backward = (Unsupported(operator="aten.a", layer="0", gradient=gradient) for gradient in (False, True))
    assert UnsupportedError([backward], problem="").only_gradients
    assert not UnsupportedError([forward, backward], problem="").only_gradients


def test_names_of_operators() -> None:
    assert operator_name(torch.ops.aten.add.Tensor) == "aten.add"
    assert operator_name("aten::max_pool3d_with_indices.out") == "aten.max_pool3d_with_indices"
    assert operator_name("aten::relu") == "aten.relu"
