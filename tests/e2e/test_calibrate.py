"""``pocketfleet calibrate``: from measured rows or a benchmark's result to a profile that an experiment names."""

import csv
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from pocketfleet import Bundle
from pocketfleet.device_sim.efficiency import load_profile
from pocketfleet.device_sim.measurement import read_measurements

RECORDED = Path(__file__).parents[1] / "device_sim" / "data" / "host.csv"
BOSTON = ("simulate", "boston-two-phones", "--set", "rounds.count=1", "--quiet")


def train_s(run: str) -> dict[str, float]:
    events = pd.read_parquet(Path(run) / "events.parquet")
    trained = events[events["kind"] == "train"]
    return dict(zip(trained["device"].astype(str), trained["seconds"], strict=True))


def test_a_fit_prints_errors_by_row_beside_fedscales_rule(pocketfleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    called = pocketfleet("calibrate", RECORDED, "--halves", "--out", "host.csv")
    assert called.code == 0, called.err
    for part in ("measured, and told by the fit", "predicted from the other half", "FedScale's rule", "lenet/onnx/16"):
        assert part in called.out
    # One line a runtime of whole steps held out, with median and p90 of ours and of the rule's.
    summary = called.out.split("errors of the rows that were held out")[1]
    found = re.findall(r"host\s+(\w+)\s+step\s+24\s+([\d.]+)%, ([\d.]+)%\s+([\d.]+)%, ([\d.]+)%", summary)
    assert [row[0] for row in found] == ["executorch", "onnx"]
    for _, median, _, rule_median, _ in found:
        assert float(median) <= 0.5 * float(rule_median)
    profile = load_profile("host.csv")
    assert profile.efficiency("onnx").fixed_s == pytest.approx(load_profile().efficiency("onnx").fixed_s, rel=0.1)


def test_an_experiment_names_a_profile(pocketfleet, boston_bundle: Bundle) -> None:
    given = f"task.bundle={boston_bundle.path}"
    with Path("slow.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("runtime", "phone", "parameter", "value", "confidence", "source"))
        efficiency = load_profile().efficiency("executorch")
        for name, cost in efficiency.classes.items():
            rows.writerow(("executorch", "any", f"{name}.efficiency", cost.efficiency, "assumed", "test"))
            rows.writerow(("executorch", "any", f"{name}.byte_s", cost.byte_s, "assumed", "test"))
        # A call that takes a second longer on the measured core, and no core here is as fast.
        overheads = {"dispatch_s": efficiency.dispatch_s, "fixed_s": efficiency.fixed_s + 1.0}
        overheads |= {"parallel_ratio": 0.0, "core_peak_flops": efficiency.core_peak_flops}
        for name, value in overheads.items():
            rows.writerow(("executorch", "any", name, value, "assumed", "test"))
    assert pocketfleet(*BOSTON, "--set", given, "--out", "plain").code == 0
    assert pocketfleet(*BOSTON, "--set", given, "--set", "fleet.profile=slow.csv", "--out", "slow").code == 0
    called = pocketfleet(*BOSTON, "--set", "fleet.profile=slow.csv", "--set", "fleet.program=onnx", "--out", "onnx")
    assert called.code == 2
    assert "fleet.profile slow.csv has rows of executorch, none of fleet.program 'onnx'" in called.err
    assert not Path("onnx").exists()
    plain, slow = train_s("plain"), train_s("slow")
    assert plain.keys() == slow.keys()
    assert all(slow[device] > plain[device] + 1.0 for device in plain)


def test_a_wrong_profile_is_told_before_anything_is_written(pocketfleet) -> None:
    called = pocketfleet(*BOSTON, "--set", "fleet.profile=none.csv")
    assert called.code == 2
    assert called.err.startswith("pocketfleet: cannot read the table none.csv")
    assert not Path("runs").exists()


def test_a_benchmark_calibrates_the_machine_that_it_ran_on(pocketfleet, boston_bundle: Bundle) -> None:
    quick = ("--runtime", "onnx", "--steps", 3, "--seconds", 0, "--quiet")
    assert pocketfleet("bench", boston_bundle.path, "--phones", "none", "--json", "bench.json", *quick).code == 0
    arguments = ("calibrate", "bench.json", "--bundle", boston_bundle.path, "--phone", "Pixel 8", "--quiet")
    called = pocketfleet(*arguments, "--out", "mine.csv", "--csv", "rows.csv")
    assert called.code == 0, called.err
    assert {row.phone for row in read_measurements(Path("rows.csv"))} == {"Pixel 8"}
    assert load_profile("mine.csv").has_own("onnx", "Pixel 8")
    # The same rows give the same profile, and a benchmark predicts by it.
    assert pocketfleet("calibrate", "rows.csv", "--out", "again.csv", "--quiet").code == 0
    mine, again = (load_profile(name).efficiency("onnx", "Pixel 8") for name in ("mine.csv", "again.csv"))
    assert again.fixed_s == pytest.approx(mine.fixed_s, rel=1e-2)
    arguments = ("bench", boston_bundle.path, "--phones", "Pixel 8", "--profile", "mine.csv", *quick)
    assert pocketfleet(*arguments, "--json", "mine.json").code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("none.csv",), "cannot read the table none.csv"),
        (("none.json",), "none.json cannot be read as JSON"),
        (("none.json", "--phone", "Nokia 3310"), "there is no phone 'Nokia 3310'"),
        (("none.json", "--phone", "Pixel 8"), "none.json cannot be read as JSON"),
        ((RECORDED, "--peak-gflops", "100"), "--peak-gflops and --memory-gb-per-s go together"),
        ((RECORDED, "--phone", "Pixel 8", "--peak-gflops", "1"), "leave out its peak and its bandwidth"),
        ((RECORDED, "--out", "missing/profile.csv"), "cannot be written: name a file in a folder that is there"),
    ],
)
def test_what_is_wrong_is_told(pocketfleet, arguments: tuple[object, ...], message: str) -> None:
    called = pocketfleet("calibrate", *arguments)
    assert called.code == 2
    assert message in called.err
    assert len(called.err.strip().splitlines()) == 1


def test_help_is_quick_to_ask_for() -> None:
    """Nothing heavy is imported by the module itself."""
    code = "import sys, pocketfleet.calibrate_cli; print([m for m in ('torch', 'numpy', 'scipy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
