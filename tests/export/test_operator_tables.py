"""Tables that are kept hold what torch's own hold, and see what is loaded after them."""

import pytest
import torch
from torch import nn
from torch.export import exported_program
from torch.onnx._internal.exporter._registration import ONNXRegistry

from pocketfleet.export.operator_tables import kept_operators, kept_translations, searched_where_found
from pocketfleet.export.quiet import quiet_export


def test_operators_are_torchs_own_and_made_once() -> None:
    expected = exported_program._collect_all_valid_cia_ops()
    with kept_operators():
        found = exported_program._collect_all_valid_cia_ops()
        assert exported_program._collect_all_valid_cia_ops() is found
    assert found == expected
    assert len(found) > 100
    # Left, it is torch's own again, which makes it anew.
    assert exported_program._collect_all_valid_cia_ops() is not found


def test_an_operator_that_comes_later_is_seen() -> None:
    with kept_operators():
        before = exported_program._collect_all_valid_cia_ops()
        library = torch.library.Library("pocketfleet_tables", "DEF")
        library.define("twice(Tensor x) -> Tensor")
        library.impl("twice", lambda x: 2 * x, "CompositeImplicitAutograd")
        after = exported_program._collect_all_valid_cia_ops()
    assert after - before == {torch.ops.pocketfleet_tables.twice.default}


def test_translations_are_torchs_own_and_made_once() -> None:
    with quiet_export():
        expected = ONNXRegistry.from_torchlib(opset_version=18)
        with kept_translations():
            found = ONNXRegistry.from_torchlib(opset_version=18)
            assert ONNXRegistry().from_torchlib(opset_version=18) is found
            other = ONNXRegistry.from_torchlib(opset_version=20)
    assert found.opset_version == 18
    assert other.opset_version == 20
    assert set(found.functions) == set(expected.functions)
    assert len(found.functions) > 100


class _Resized(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


@pytest.mark.parametrize(("model", "searched"), [(_Resized(), True), (nn.ReLU(), False)], ids=["resized", "plain"])
def test_a_graph_is_searched_for_resizing_where_it_can_hold_some(
    model: nn.Module, searched: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with quiet_export():
        from executorch.backends.xnnpack._passes import ConvertToUpsampleBilinear2d
        from executorch.backends.xnnpack.partition.graphs import bilinear_2d
        from executorch.backends.xnnpack.utils.configs import get_xnnpack_edge_compile_config
        from executorch.exir import to_edge

        traced = torch.export.export(model, (torch.ones(1, 3, 4, 4),), strict=False)
        edge = to_edge(traced, compile_config=get_xnnpack_edge_compile_config()).exported_program()
        asked, patterns = [], bilinear_2d.get_graphs_dict

        def watched() -> object:
            asked.append(True)
            return patterns()

        monkeypatch.setattr(bilinear_2d, "get_graphs_dict", watched)
        with searched_where_found():
            result = ConvertToUpsampleBilinear2d(edge)(edge.graph_module)
    assert result is not None
    assert asked == ([True] if searched else [])
    # Found, and made one operator of.
    assert any("upsample_bilinear2d" in str(node.target) for node in result.graph_module.graph.nodes) is searched
