from pathlib import Path

import pytest

from pocketfleet.device_sim.catalog import Row, file_rows, packaged_rows
from pocketfleet.errors import InputError


def row(**cells: str) -> Row:
    return Row(where="t.csv, row 2", cells=cells)


@pytest.mark.parametrize(
    "table",
    [
        *("networks.csv", "network_plans.csv", "radios.csv", "efficiency.csv"),
        *("mixes.csv", "phones.csv", "cores.csv", "thermal_classes.csv"),
    ],
)
def test_every_packaged_figure_names_its_source(table: str) -> None:
    rows = packaged_rows(table)
    sources = [column for column in rows[0].cells if column.endswith("source")]
    assert sources
    for each in rows:
        for column in sources:
            assert len(each.text(column)) > 10


@pytest.mark.parametrize("table", ["networks.csv", "efficiency.csv"])
def test_confidence_is_measured_or_assumed(table: str) -> None:
    assert {each.choice("confidence", ("measured", "assumed")) for each in packaged_rows(table)} <= {
        "measured",
        "assumed",
    }


@pytest.mark.parametrize("table", ["radios.csv", "network_plans.csv"])
def test_figures_of_radios_and_plans_say_how_they_are_known(table: str) -> None:
    for each in packaged_rows(table):
        each.choice("confidence", ("measured", "read", "computed", "assumed"))


@pytest.mark.parametrize("cell", ["", "fast", "nan", "inf", "-1", "0"])
def test_a_wrong_number_names_row_column_and_cell(cell: str) -> None:
    with pytest.raises(InputError, match=r"t\.csv, row 2, column watts") as caught:
        row(watts=cell).number("watts")
    assert "empty" in str(caught.value) if not cell else repr(cell) in str(caught.value)


def test_zero_is_a_number_where_it_is_allowed() -> None:
    assert row(metered="0").number("metered", positive=False) == 0.0
    with pytest.raises(InputError, match="at least 0, got '-1'"):
        row(metered="-1").number("metered", positive=False)


def test_a_word_outside_the_choice_is_told_the_choice() -> None:
    assert row(kind="read").choice("kind", ("read", "measured")) == "read"
    with pytest.raises(InputError, match="must be one of read, measured, got 'heard'"):
        row(kind="heard").choice("kind", ("read", "measured"))


def test_a_file_that_lacks_a_column_or_rows_or_is_not_there(tmp_path: Path) -> None:
    table = tmp_path / "mix.csv"
    with pytest.raises(InputError, match="cannot read the table"):
        file_rows(table, columns=("phone",))
    table.write_text("phone\nPixel 8\n")
    with pytest.raises(InputError, match="lacks the column weight; it has phone"):
        file_rows(table, columns=("phone", "weight"))
    table.write_text("phone,weight\n")
    with pytest.raises(InputError, match="has no rows"):
        file_rows(table, columns=("phone", "weight"))


def test_rows_are_numbered_as_an_editor_does(tmp_path: Path) -> None:
    table = tmp_path / "mix.csv"
    # A byte-order mark, as spreadsheets write it, belongs to no column name.
    table.write_text("\ufeffphone,weight\nPixel 8,1\nPixel 3,x\n")
    rows = file_rows(table, columns=("phone", "weight"))
    with pytest.raises(InputError, match=r"mix\.csv, row 3, column weight"):
        rows[1].number("weight")
