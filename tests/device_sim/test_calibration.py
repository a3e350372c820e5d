"""On what this project's own host measured: half of the models tells the other half, better than FedScale's rule."""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from pocketfleet.device_sim.calibration import (
    GENERAL,
    Prediction,
    calibrate,
    hold_out_halves,
    predict_held_out,
)
from pocketfleet.device_sim.catalog import packaged_rows
from pocketfleet.device_sim.efficiency import load_profile
from pocketfleet.device_sim.measurement import Measurement, read_measurements
from pocketfleet.errors import InputError

# python benchmarks/measure_efficiency.py --bundles bundles/ --threaded --out host.csv, several times with
# --earlier; its first row names the machine.
RECORDED = Path(__file__).parent / "data" / "host.csv"
RUNTIMES = ("executorch", "onnx")


@pytest.fixture(scope="module")
def recorded() -> tuple[Measurement, ...]:
    return read_measurements(RECORDED)


@pytest.fixture(scope="module")
def held_out(recorded: tuple[Measurement, ...]) -> tuple[Prediction, ...]:
    return hold_out_halves(recorded)


def median_p90(errors: Sequence[float | None]) -> tuple[float, float]:
    median, p90 = np.percentile(np.abs(np.array(errors, dtype=np.float64)), [50, 90])
    return float(median), float(p90)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_half_of_the_models_tells_the_other_half(held_out: tuple[Prediction, ...], runtime: str) -> None:
    own = [one for one in held_out if one.measurement.runtime == runtime]
    # Twelve models at two batch sizes, each held out once.
    assert len({one.measurement.name for one in own}) == len(own) == 24
    median, p90 = median_p90([one.error for one in own])
    rule_median, _ = median_p90([one.fedscale_error for one in own])
    assert median < 0.30
    assert p90 < 0.70
    assert median <= 0.5 * rule_median


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_the_packaged_profile_is_the_fit_to_all_that_was_recorded(
    recorded: tuple[Measurement, ...], runtime: str
) -> None:
    fitted = calibrate(recorded, start=GENERAL).profile.efficiency(runtime)
    packaged = load_profile().efficiency(runtime)
    assert packaged.core_peak_flops == pytest.approx(fitted.core_peak_flops, rel=1e-3)
    # Another version of scipy may stop a little elsewhere.
    for name in ("dispatch_s", "fixed_s", "parallel_ratio"):
        assert getattr(packaged, name) == pytest.approx(getattr(fitted, name), rel=0.05)
    for name, cost in fitted.classes.items():
        assert packaged.ratio(name) == pytest.approx(cost.efficiency, rel=0.05)
        assert packaged.cost(name).byte_s == pytest.approx(cost.byte_s, rel=0.05)
    # What no recorded row tells stands in the table as assumed.
    assumed = {
        row.text("parameter")
        for row in packaged_rows("efficiency.csv")
        if row.text("runtime") == runtime and row.text("confidence") == "assumed"
    }
    assert assumed == fitted.untold != set()


def test_a_fit_tells_its_own_rows_better_than_one_that_has_not_seen_them(
    recorded: tuple[Measurement, ...], held_out: tuple[Prediction, ...]
) -> None:
    steps = [one for one in calibrate(recorded).predictions if one.measurement.scope == "step"]
    assert median_p90([one.error for one in steps])[0] < median_p90([one.error for one in held_out])[0]


def test_a_phones_rows_make_a_profile_of_that_phone(recorded: tuple[Measurement, ...]) -> None:
    mine = [dataclasses.replace(one, phone="Pixel 8") for one in recorded if one.runtime == "onnx"]
    profile = calibrate(mine).profile
    assert list(profile.efficiencies) == [("onnx", "Pixel 8")]


def test_held_out_rows_are_not_looked_at(recorded: tuple[Measurement, ...]) -> None:
    rows = [one for one in recorded if one.runtime == "onnx"]
    spoilt = [dataclasses.replace(one, seconds=1.0) if one.model == "mlp" else one for one in rows]
    predictions = [predict_held_out(own, models=["mlp"]) for own in (rows, spoilt)]
    assert len(predictions[0]) == 2
    for true, other in zip(*predictions, strict=True):
        assert other.predicted_s == true.predicted_s
        assert other.fedscale_s == true.fedscale_s


def test_halves_need_models(recorded: tuple[Measurement, ...]) -> None:
    one_model = [one for one in recorded if one.model == "mlp" and one.runtime == "onnx"]
    with pytest.raises(InputError, match="halves need measurements of two or more models, got 1 of onnx on host"):
        hold_out_halves(one_model)


def test_the_docs_table_is_what_the_recorded_rows_give(held_out: tuple[Prediction, ...]) -> None:
    text = (Path(__file__).parents[2] / "docs" / "calibration.md").read_text()
    table = text.split("<!-- models -->")[1].split("<!-- /models -->")[0]
    rows = re.findall(r"^\| `(\w+)` \| (\d+) % \| (\d+) % \| (\d+) % \| (\d+) % \|$", table, re.MULTILINE)
    assert [row[0] for row in rows] == sorted({one.measurement.model for one in held_out})
    for model, *figures in rows:
        expected = []
        for runtime in RUNTIMES:
            own = [one for one in held_out if (one.measurement.model, one.measurement.runtime) == (model, runtime)]
            expected += [median_p90([getattr(one, error) for one in own])[0] for error in ("error", "fedscale_error")]
        # Rounded to a percent; another version of scipy may move a fit by as much again.
        assert [int(figure) / 100 for figure in figures] == pytest.approx(expected, abs=0.02)
