"""Permutations as strided copies: the same values, for any order of dimensions and any batch size."""

from itertools import permutations
from pathlib import Path

import pytest
import torch
from torch.export import Dim, export
from toy import drawn

from pocketfleet.export.executorch import Methods, lower
from pocketfleet.export.xnnpack import input_weights


class _AllOrders(torch.nn.Module):
    """A tensor in every order of its dimensions, from that order with one more permutation back, and transposed."""

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [(x * 2).permute(order).permute(order) for order in permutations(range(x.dim()))] + [x.transpose(1, -1)]


def _operators(program: object) -> set[str]:
    nodes = program.exported_program("forward").graph.nodes  # type: ignore[attr-defined]
    return {str(node.target) for node in nodes}


@pytest.mark.parametrize("shape", [(3, 4), (3, 2, 5), (3, 2, 4, 5)])
@pytest.mark.parametrize("place", [0, -1])
def test_every_order(shape: tuple[int, ...], place: int, tmp_path: Path) -> None:
    dynamic = {place % len(shape): Dim("batch", min=1, max=6)}
    example = drawn(*shape)
    program = lower({"forward": export(_AllOrders(), (example,), dynamic_shapes=(dynamic,), strict=True)}, {})
    names = _operators(program)
    assert any("as_strided_copy" in name for name in names)
    assert not any("permute_copy" in name for name in names)
    path = tmp_path / "orders.pte"
    path.write_bytes(program.buffer)
    methods = Methods(path, ["forward"])
    for batch in (3, 1, 6):
        sizes = list(shape)
        sizes[place] = batch
        x = drawn(*sizes, seed=batch)
        for found, expected in zip(methods.run("forward", [x]), _AllOrders()(x), strict=True):
            assert torch.equal(found, expected)


def test_a_delegated_method_keeps_its_permutations() -> None:
    class Product(torch.nn.Module):
        def forward(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
            return (x @ weight.t()).permute(1, 0).tan()

    graph = export(Product(), (drawn(2, 3), drawn(4, 3)), strict=True)
    names = _operators(lower({"forward": graph}, {"forward": [input_weights()]}))
    assert any("executorch_call_delegate" in name for name in names)
    assert not any("as_strided_copy" in name for name in names)
