"""A fleet that lives recorded days trains when the recording says so, and only then."""

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pocketfleet import Bundle, Experiment, Run, resume, simulate
from pocketfleet.device_sim.trace_events import EVENTS, read_trace
from pocketfleet.errors import InputError

HOUR_S, DAY_S = 3600.0, 86400.0
# Two recorded phones: one charges from 2 to 3 in the night and from 20 to 21 h, the other never.
TRACE = """device,time_s,event
kitchen,7200,charge_on
kitchen,10800,charge_off
kitchen,72000,charge_on
kitchen,75600,charge_off
sofa,0,charge_off
"""
SETTINGS = (
    "fleet.devices=10",
    "fleet.availability=my_trace.csv",
    "partition.examples_per_device=40",
    "rounds.count=6",
    "rounds.cohort=4",
    "rounds.over_selection=1.0",
    "rounds.interval_s=1500",
    "rounds.horizon_s=345600",
)


def run(bundle: Bundle, out: Path, *settings: str) -> Run:
    experiment = Experiment.load("boston-fleet", [*SETTINGS, f"task.bundle={bundle.path}", *settings])
    text = experiment.to_toml().replace("overrides = []\n", "")
    # Full batteries: what keeps a phone from training is the trace.
    return simulate(Experiment.from_toml(f'{text}\n[[fleet.overrides]]\ndevices = "all"\nbattery_ratio = 1.0\n'), out)


@pytest.fixture
def trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The trace, in the folder where the run starts."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "my_trace.csv"
    path.write_text(TRACE)
    return path


def test_phones_train_when_the_trace_says_so_and_only_then(boston_bundle: Bundle, trace: Path) -> None:
    found = run(boston_bundle, trace.parent / "run")
    assigned, worked = (found.events.query(f"kind == '{kind}'") for kind in ("assign", "train"))
    assert found.summary["rounds"] == 6
    for times_s in (assigned["time_s"], worked["time_s"]):
        hour = times_s.to_numpy() % DAY_S / HOUR_S
        assert np.all(((hour >= 2) & (hour <= 3)) | ((hour >= 20) & (hour <= 21)))
    # Hours of both charges; at most three rounds fit into an hour, so six take two charges at least.
    assert set((assigned["time_s"] % DAY_S // HOUR_S).astype(int)) == {2, 20}
    # Two recorded phones for ten: five each, and those without a charger never train.
    assert len(set(assigned["device"])) == 5
    assert {reason for reason, phones in found.summary["ineligible"].items() if phones} == {"not_charging"}


def test_a_shift_a_period_and_the_rules_switches_reach_the_run(boston_bundle: Bundle, trace: Path) -> None:
    shifted = run(boston_bundle, trace.parent / "shifted", "fleet.trace_shift_s=3600", "rounds.count=1")
    assert shifted.events.query("kind == 'assign'")["time_s"].min() == 3 * HOUR_S
    over = run(boston_bundle, trace.parent / "over", "fleet.trace_repeat=never", "rounds.count=100")
    assert over.summary["ended"] == "horizon"
    assert over.events.query("kind == 'assign'")["time_s"].max() < DAY_S
    free = run(boston_bundle, trace.parent / "free", "eligibility.charging=false", "rounds.count=1")
    assert free.events.query("kind == 'assign'")["time_s"].min() == 0.0


def test_the_same_trace_replays_to_the_same_events(boston_bundle: Bundle, trace: Path) -> None:
    first, second = (run(boston_bundle, trace.parent / name, "rounds.count=2") for name in ("first", "second"))
    assert first.summary["events_sha256"] == second.summary["events_sha256"]


class KilledError(Exception):
    pass


def test_a_run_goes_on_only_with_the_trace_that_it_began_with(boston_bundle: Bundle, trace: Path) -> None:
    def kill(stage: str, row: Mapping[str, Any]) -> None:
        if stage == "round" and row["round"] == 1:
            raise KilledError

    out = trace.parent / "run"
    settings = [*SETTINGS, f"task.bundle={boston_bundle.path}", "eligibility.min_battery_ratio=0.0"]
    with pytest.raises(KilledError):
        simulate(Experiment.load("boston-fleet", settings), out, observer=kill)
    trace.write_text(TRACE.replace("7200", "7201"))
    with pytest.raises(InputError, match=r"fleet\.availability: my_trace\.csv was edited since the run started"):
        resume(out)
    trace.unlink()
    with pytest.raises(InputError, match=r"fleet\.availability"):
        resume(out)
    trace.write_text(TRACE)
    assert resume(out).summary["rounds"] == 6


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_flash_and_fedscale_are_converted_and_run(pocketfleet, suffix: str, boston_bundle: Bundle) -> None:
    lines = ["screen_off", "wifi", "battery_charged_on", "84.0%"]
    messages = "\n".join(f"2020-01-28 0{hour}:00:00\t{state}" for hour, state in enumerate(lines))
    Path("state_traces.json").write_text(json.dumps({"0": {"guid": "x", "model": "x", "messages": messages}}))
    client = {"duration": 3600, "inactive": [10_800], "finish_time": 86_400, "active": [7200], "model": "CPH1801"}
    Path("client_behave_trace").write_bytes(pickle.dumps({1: client}, protocol=4))
    for form, source in (("flash", "state_traces.json"), ("fedscale", "client_behave_trace")):
        out = f"{form}{suffix}"
        called = pocketfleet("convert-trace", form, source, "--out", out)
        assert called.code == 0, called.err
        assert called.out.startswith(f"wrote {out}: 1 devices, 4 events")
        assert ("battery levels" in called.out) == (form == "flash")
        events = read_trace(out)
        assert (7200.0, "charge_on") in [
            (time_s, EVENTS[event]) for time_s, event in zip(events.time_s, events.event, strict=True)
        ]
        found = run(boston_bundle, Path(form), f"fleet.availability={out}", "rounds.count=1")
        # Two hours after midnight in both.
        assert found.events.query("kind == 'assign'")["time_s"].min() == 2 * HOUR_S


def test_what_cannot_be_converted_is_told_in_a_sentence(pocketfleet) -> None:
    Path("evil").write_bytes(b"cos\nsystem\n(S'touch ran'\ntR.")
    for arguments, said in (
        (("fedscale", "evil"), r"evil: byte 0: the pickle's instruction GLOBAL 'os system' is not carried out"),
        (("flash", "evil"), r"cannot read FLASH's trace evil"),
        (("flesh", "evil"), r"format must be one of flash, fedscale, got 'flesh'"),
    ):
        called = pocketfleet("convert-trace", *arguments, "--out", "t.parquet")
        assert called.code == 2
        assert said in called.err
        assert len(called.err.strip().splitlines()) == 1
    assert [path.name for path in Path().iterdir()] == ["evil"]


def test_a_file_in_the_way_is_kept_unless_forced(pocketfleet) -> None:
    client = {"inactive": [10_800], "finish_time": 86_400, "active": [7200]}
    Path("source").write_bytes(pickle.dumps({1: client}))
    Path("t.csv").write_text("mine")
    called = pocketfleet("convert-trace", "fedscale", "source", "--out", "t.csv")
    assert called.code == 2
    assert "t.csv is there already: name another file or add --force" in called.err
    assert Path("t.csv").read_text() == "mine"
    assert pocketfleet("convert-trace", "fedscale", "source", "--out", "t.csv", "--force").code == 0
    assert Path("t.csv").read_text().startswith("device,time_s,event\n1,0.0,charge_off\n")
    assert "ends in .csv or .parquet" in pocketfleet("convert-trace", "fedscale", "source", "--out", "t.json").err


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (("fleet.availability=gone.csv",), "cannot read the trace gone.csv"),
        (("fleet.availability=bad.csv",), "bad.csv, row 2, column event: must be one of screen_on, screen_off"),
        (("fleet.availability=trace.txt",), "or the path of a recorded trace, which ends in .csv or .parquet"),
        (("fleet.trace_repeat=never",), "fleet.trace_repeat and fleet.trace_shift_s are for a recorded trace"),
        (("fleet.trace_shift_s=5",), "fleet.trace_repeat and fleet.trace_shift_s are for a recorded trace"),
        (("fleet.trace_repeat=weekly",), "fleet.trace_repeat should be 'days', 'recording' or 'never', got 'weekly'"),
        (("fleet.trace_shift_s=nan",), "fleet.trace_shift_s should be a finite number"),
    ],
)
def test_what_is_wrong_with_a_trace_is_told_before_anything_is_written(pocketfleet, settings, said: str) -> None:
    Path("bad.csv").write_text("device,time_s,event\na,5,sleeping\n")
    called = pocketfleet("simulate", "boston-fleet", *(part for one in settings for part in ("--set", one)))
    assert called.code == 2, called
    assert said in called.err
    assert len(called.err.strip().splitlines()) == 1
    assert not Path("runs").exists()
