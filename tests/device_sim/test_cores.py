import pytest

from pocketfleet.device_sim.catalog import Row
from pocketfleet.device_sim.cores import core_flop_per_cycle, parse_clusters
from pocketfleet.errors import InputError


def cell(text: str) -> Row:
    return Row(where="phones.csv, row 2", cells={"clusters": text})


def test_a_pixel_8_has_three_clusters() -> None:
    little, middle, big = parse_clusters(cell("4xA510@1.704+4xA715@2.367+1xX3@2.914"), "clusters")
    assert (little.cores, middle.cores, big.cores) == (4, 4, 1)
    assert big.kind == "X3"
    assert big.hertz == 2.914e9
    # 24 FP32 operations a cycle of a Cortex-X3, measured: 69.775 GFLOP/s over 2.914 GHz.
    assert big.peak_flops_one_thread == pytest.approx(69.775e9, rel=0.01)
    # Four threads on two shared vector units: 61.29 GFLOP/s of four measured.
    assert 4 * little.peak_flops_one_thread == pytest.approx(61.29e9, rel=0.01)


def test_an_unlisted_kind_is_its_operations_a_cycle() -> None:
    (cluster,) = parse_clusters(cell("2x16@2.4"), "clusters")
    assert cluster.peak_flops_one_thread == pytest.approx(2.4e9 * 16)
    (fraction,) = parse_clusters(cell(" 2x7.5@2 "), "clusters")
    assert fraction.peak_flops_one_thread == pytest.approx(2e9 * 7.5)


def test_a_core_computes_what_its_vector_units_can() -> None:
    # At least one 128-bit multiply-add a cycle (8 operations, less what a loop costs), at most four.
    assert all(7.5 <= flop <= 32 for flop in core_flop_per_cycle().values())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fast", "must be cores x kind @ GHz joined by [+], such as 4xA55@1.8[+]4xA78@2.4, got 'fast'"),
        ("4xA55@1.8+", "must be cores x kind @ GHz .*, got ''"),
        ("0xA55@1.8", "must be cores x kind @ GHz .*, got '0xA55@1.8'"),
        ("4xA55@0", "must be cores x kind @ GHz .*, got '4xA55@0'"),
        ("4xA99@1.8", "there is no core 'A99'; its kinds are A53, .*such as 2x16@2.4"),
        ("4x0@1.8", "there is no core '0'"),
        ("1xX3@2.9+4xA510@1.7", "slow clusters come first"),
        ("", "is empty"),
    ],
)
def test_a_wrong_cell_is_told_its_form(text: str, message: str) -> None:
    with pytest.raises(InputError, match=f"row 2, column clusters: {message}"):
        parse_clusters(cell(text), "clusters")
