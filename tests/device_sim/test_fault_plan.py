import math
import multiprocessing
from pathlib import Path

from pocketfleet.device_sim.fault_plan import CRASHED, FaultPlan


def test_faults_are_drawn_and_each_life_draws_anew() -> None:
    plan = FaultPlan(seed=1, device=2, crash_ratio=0.3, break_ratio=0.3)
    crashes = [plan.crashes("trained", number) for number in range(1_000)]
    assert crashes == [
        FaultPlan(seed=1, device=2, crash_ratio=0.3).crashes("trained", number) for number in range(1_000)
    ]
    # Of 1,000 with chance 0.3: 300 with a standard deviation of 14.5.
    assert 250 < sum(crashes) < 350
    other_life = FaultPlan(seed=1, device=2, life=1, crash_ratio=0.3)
    assert [other_life.crashes("trained", number) for number in range(1_000)] != crashes
    breaks = [plan.breaks_after(number) for number in range(1_000)]
    assert 250 < sum(math.isfinite(after) for after in breaks) < 350
    assert 0.0 <= min(breaks) < 1_000.0


def test_without_ratios_nothing_happens() -> None:
    plan = FaultPlan(seed=1, device=2)
    plan.crash("assigned", 3)
    assert plan.crash_step(4, steps=10) == 10
    assert plan.breaks_after(5) == math.inf


def test_a_device_dies_within_its_steps() -> None:
    plan = FaultPlan(crash_ratio=0.999)
    after = {plan.crash_step(number, steps=4) for number in range(100)}
    assert after >= {0, 1, 2, 3}


def test_who_dies_runs_nothing_more(tmp_path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=_die, args=(str(tmp_path / "handled"),))
    process.start()
    process.join()
    assert process.exitcode == CRASHED
    assert not (tmp_path / "handled").exists()


def _die(handled: str) -> None:
    try:
        FaultPlan(crash_ratio=1.0).crash("assigned", 1)
    finally:
        Path(handled).write_text("a handler ran")
