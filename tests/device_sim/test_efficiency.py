from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketfleet.device_sim.catalog import file_rows
from pocketfleet.device_sim.efficiency import (
    ClassCost,
    Efficiency,
    Profile,
    load_profile,
    write_profile,
)
from pocketfleet.errors import InputError

HEADER = "runtime,phone,parameter,value,confidence,source\n"
WHOLE = {
    "matmul.efficiency": "0.5",
    "matmul.byte_s": "1e-10",
    "dispatch_s": "1e-6",
    "fixed_s": "1e-5",
    "parallel_ratio": "0.5",
    "core_peak_flops": "1e11",
}


def table(folder: Path, changes: dict[str, str | None] | None = None, *, phone: str = "Pixel 8") -> Path:
    cells = {**WHOLE, **(changes or {})}
    path = folder / "profile.csv"
    rows = [f"onnx,{phone},{name},{value},fitted,here\n" for name, value in cells.items() if value is not None]
    path.write_text(HEADER + "".join(rows))
    return path


def test_a_phones_own_rows_beat_the_packaged_ones(tmp_path: Path) -> None:
    profile = load_profile(table(tmp_path))
    assert profile.efficiency("onnx", "Pixel 8").ratio("matmul") == 0.5
    assert profile.efficiency("onnx", "Pixel 3") == load_profile().efficiency("onnx")
    assert profile.efficiency("executorch", "Pixel 8") == load_profile().efficiency("executorch")
    assert profile.has_own("onnx", "Pixel 8")
    assert not profile.has_own("onnx", "Pixel 3")


def test_rows_for_any_phone_take_the_packaged_ones_place(tmp_path: Path) -> None:
    assert load_profile(table(tmp_path, phone="any")).efficiency("onnx", "Pixel 3").ratio("matmul") == 0.5


ratios = st.floats(1e-6, 1.0)
seconds = st.floats(0.0, 1.0)
costs = st.builds(ClassCost, efficiency=ratios, byte_s=seconds, dispatch_s=st.none() | seconds)
efficiencies = st.builds(
    Efficiency,
    runtime=st.just("onnx"),
    classes=st.dictionaries(st.sampled_from(["matmul", "copy", "lstm"]), costs, min_size=1),
    dispatch_s=seconds,
    fixed_s=seconds,
    parallel_ratio=st.floats(0.0, 1.0),
    core_peak_flops=st.floats(1e9, 1e13),
)


@given(efficiencies)
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, efficiency: Efficiency) -> None:
    path = tmp_path_factory.mktemp("profile") / "profile.csv"
    write_profile(
        Profile(where="here", efficiencies={("onnx", "Pixel 8"): efficiency}), path, confidence="fitted", source="test"
    )
    found = load_profile(path).efficiency("onnx", "Pixel 8")
    assert found.classes.keys() == efficiency.classes.keys()
    for name, cost in efficiency.classes.items():
        # Four digits are kept.
        assert found.cost(name).efficiency == pytest.approx(cost.efficiency, rel=1e-3)
        assert found.cost(name).byte_s == pytest.approx(cost.byte_s, rel=1e-3)
        assert found.cost(name).dispatch_s == (
            None if cost.dispatch_s is None else pytest.approx(cost.dispatch_s, rel=1e-3)
        )
    for name in ("dispatch_s", "fixed_s", "parallel_ratio", "core_peak_flops"):
        assert getattr(found, name) == pytest.approx(getattr(efficiency, name), rel=1e-3)


def test_what_no_measurement_tells_is_written_as_assumed(tmp_path: Path) -> None:
    fitted = replace(load_profile().efficiency("onnx"), untold=frozenset({"copy.efficiency", "fixed_s"}))
    path = tmp_path / "profile.csv"
    write_profile(Profile(where="here", efficiencies={("onnx", "any"): fitted}), path, confidence="fitted", source="me")
    rows = {row.text("parameter"): row for row in file_rows(path, columns=["parameter"])}
    for name, row in rows.items():
        wanted = ("assumed", "start value, told by no row") if name in fitted.untold else ("fitted", "me")
        assert (row.text("confidence"), row.text("source")) == wanted
    assert fitted.untold < set(rows)


WRONG: list[tuple[dict[str, str | None], str]] = [
    (
        {"matmul.efficiency": "1.5"},
        r"row 2, column value: matmul\.efficiency is a ratio of a peak, at most 1, got 1\.5",
    ),
    ({"matmul.efficiency": "0"}, "row 2, column value: must be a number more than 0, got '0'"),
    ({"fixed_s": "-1"}, "row 5, column value: must be a number at least 0, got '-1'"),
    (
        {"matmul.speed": "1"},
        r"must be dispatch_s, .* or a class of operators with \.efficiency, .* got 'matmul\.speed'",
    ),
    ({"matmul": "1"}, "got 'matmul'"),
    ({"matmul.byte_s": None}, r"profile\.csv: onnx on Pixel 8 lacks the parameter matmul\.byte_s"),
    ({"fixed_s": None}, r"lacks the parameter fixed_s"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG)
def test_a_wrong_table_is_told_where(tmp_path: Path, changes: dict[str, str | None], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_profile(table(tmp_path, changes))


def test_a_parameter_stands_once(tmp_path: Path) -> None:
    path = table(tmp_path)
    path.write_text(path.read_text() + "onnx,Pixel 8,fixed_s,1,fitted,here\n")
    with pytest.raises(InputError, match="row 8, column parameter: fixed_s is there twice"):
        load_profile(path)


def test_a_missing_file_and_a_foreign_runtime_are_told() -> None:
    with pytest.raises(InputError, match=r"cannot read the table nowhere\.csv"):
        load_profile("nowhere.csv")
    with pytest.raises(
        InputError, match=r"efficiency\.csv has a profile of \(executorch on any, onnx on any\), got 'dl4j'"
    ):
        load_profile().efficiency("dl4j", "Pixel 8")


def test_a_fleets_profile_must_tell_of_its_program(tmp_path: Path) -> None:
    path = table(tmp_path)
    assert load_profile(path, program="onnx") == load_profile(path)
    with pytest.raises(
        InputError, match=r"profile\.csv has rows of onnx, none of fleet\.program 'executorch': set fleet\.program"
    ):
        load_profile(path, program="executorch")


def test_a_profile_needs_a_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be written: No such file"):
        write_profile(load_profile(), tmp_path / "none" / "p.csv", confidence="fitted", source="test")
