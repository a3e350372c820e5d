"""Emulated devices take the time that the simulator says, at real speed, as seen from outside."""

import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest
from metering_proxy import Meter, metering_proxy

from pocketfleet import Bundle, Experiment, emulation, simulate
from pocketfleet.emulation import EmulationPlan, emulate

DEVICES, ROUNDS = 2, 3
# A step of the phones: some hundred times the host's, which needs about 0.2 ms for it.
STEP_S = 0.05
DOWN_BITS_PER_S, UP_BITS_PER_S = 400_000.0, 200_000.0
WITHIN = 0.2


def slow_phones(bundle: Bundle) -> Experiment:
    """Phones whose every stage takes a second or more, so that the host's own milliseconds are few."""
    phone = {
        "devices": "all",
        "step_s": STEP_S,
        "down_bits_per_s": DOWN_BITS_PER_S,
        "up_bits_per_s": UP_BITS_PER_S,
        "latency_s": 0.05,
        "link_losses_per_hour": 0.0,
        "battery_ratio": 1.0,
    }
    return Experiment.from_table(
        {
            "seed": 3,
            "task": {"name": "boston", "bundle": str(bundle.path)},
            "fleet": {"devices": DEVICES, "program": "onnx", "heat": False, "overrides": [phone]},
            "training": {"batch_size": 8, "learning_rate": 0.001},
            "rounds": {"count": ROUNDS, "cohort": DEVICES, "over_selection": 1.0, "deadline_s": 3600.0},
            "engine": {"runtime": "onnx"},
        }
    )


def rates(transfers: list[list[tuple[float, int]]]) -> list[float]:
    """Bits a second of each connection's longest run of bytes without a second's pause."""
    found = []
    for pieces in transfers:
        runs: list[list[tuple[float, int]]] = [[]]
        for at_s, count in pieces:
            if runs[-1] and at_s - runs[-1][-1][0] > 1.0:
                runs.append([])
            runs[-1].append((at_s, count))
        longest = max(runs, key=lambda run: sum(count for _, count in run))
        moved = sum(count for _, count in longest[1:])
        if moved > 10_000:
            found.append(8.0 * moved / (longest[-1][0] - longest[0][0]))
    return found


def test_seconds_rates_and_memory_are_the_phones(
    tmp_path: Path, boston_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = simulate(slow_phones(boston_bundle), tmp_path / "run")
    meters: list[Meter] = []
    real_url = emulation._url
    with ExitStack() as stack:

        def by_the_proxy(service: "subprocess.Popen[bytes]", state: Path) -> str:
            meters.append(stack.enter_context(metering_proxy(real_url(service, state))))
            return meters[0].url

        monkeypatch.setattr(emulation, "_url", by_the_proxy)
        plan = EmulationPlan(out=tmp_path / "out", speed=1.0)
        found = emulate(slow_phones(boston_bundle), plan, tell=lambda _: None)
    assert found["model_sha256"] == run.summary["model_sha256"]
    stages = run.events[run.events["kind"].isin(["download", "train", "upload"])]
    expected = stages.groupby(["device", "kind"], observed=True)["seconds"].sum()
    for row in found["devices"]:
        taken = {kind: row[f"{kind}_s"] for kind in ("download", "train", "upload")}
        assert row["accepted"] == ROUNDS
        for kind, seconds in taken.items():
            assert seconds == pytest.approx(expected[row["device"], kind], rel=WITHIN), (row["device"], kind)
        assert row["steps"] / row["train_s"] == pytest.approx(1.0 / STEP_S, rel=WITHIN)
        assert row["late_steps"] <= row["steps"] // 10
        assert 1e8 < row["peak_rss_bytes"] < 2e9
    # From outside: every device's bundle came, and its reports went, at its phone's rates.
    down, up = rates(meters[0].down), rates(meters[0].up)
    assert len(down) >= DEVICES
    assert down == [pytest.approx(DOWN_BITS_PER_S, rel=WITHIN)] * len(down)
    assert up == [pytest.approx(UP_BITS_PER_S, rel=WITHIN)] * len(up)
