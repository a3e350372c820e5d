import functools
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

PEERS = Path(__file__).parents[2] / "benchmarks" / "peers"
sys.path.append(str(PEERS))

from comparison import PLAIN, CurvesDisagreeError, Row, disagreement, rows_of  # noqa: E402
from goals import GOALS, Goal, SecondsGoal, fastest, heavy_stages, judge  # noqa: E402
from ours import measure  # noqa: E402
from plain_loop import Loop, play  # noqa: E402
from population import WORKLOADS, Plan, make_workload  # noqa: E402
from report import write_report  # noqa: E402
from result import Result  # noqa: E402
from workload import Workload  # noqa: E402

LOOP = Result(
    system=PLAIN,
    workload="mlp",
    seconds=4.0,
    device_steps=4_000,
    losses=[0.8, 0.4, 0.2, 0.1, 0.05],
    versions={"python": "3.11.7", "torch": "2.13.0"},
)
OURS = replace(LOOP, system="pocketfleet, 2 processes", seconds=0.5)
# Two of the four rounds, a hundredth as fast as ours.
SLOW = replace(LOOP, system="Flower", seconds=25.0, device_steps=2_000, losses=[0.8, 0.4, 0.2])


def test_rows_tell_throughput_and_mark_what_is_computed() -> None:
    twice = [OURS, replace(OURS, seconds=1.0)]
    loop, ours, slow = rows_of([LOOP, *twice, SLOW], all_rounds=4)

    assert (loop.steps_per_s, loop.all_rounds_s, loop.computed) == (1_000.0, 4.0, False)
    # The median of 8,000 and 4,000; 4,000 steps at 6,000 a second.
    assert (ours.runs, ours.steps_per_s, ours.steps_per_s_least) == (2, 6_000.0, 4_000.0)
    assert ours.all_rounds_s == pytest.approx(2 / 3)
    # 1,000 steps a round at 80 a second: 50 s for four, of which 25 were measured.
    assert (slow.rounds, slow.all_rounds_s, slow.computed) == (2, 50.0, True)


def test_a_round_of_warm_up_counts_for_nothing_but_the_curve() -> None:
    # The last three of four rounds: 3,000 steps in half a second.
    warmed = replace(OURS, device_steps=3_000, warm_rounds=1)
    _, ours = rows_of([LOOP, warmed], all_rounds=4)
    assert (ours.rounds, ours.steps_per_s, ours.computed) == (3, 6_000.0, True)
    assert ours.all_rounds_s == pytest.approx(2 / 3)


def ratio_of(rows: list[Row], goal: Goal) -> float | None:
    found = judge(rows, goal)
    return found.measured if found else None


def test_a_goal_takes_the_fastest_row_of_both_sides() -> None:
    rows = rows_of([LOOP, OURS, replace(OURS, system="pocketfleet, 1 process", seconds=2.0), SLOW], all_rounds=4)

    assert ratio_of(rows, Goal(workload="mlp", ours="pocketfleet", peer="Flower", ratio=50.0)) == 100.0
    assert ratio_of(rows, Goal(workload="mlp", ours="pocketfleet, 1", peer="plain", ratio=50.0)) == 2.0
    assert ratio_of(rows, Goal(workload="mlp", ours="pocketfleet", peer="pfl-research", ratio=15.0)) is None
    assert ratio_of(rows, Goal(workload="lenet", ours="pocketfleet", peer="Flower", ratio=2.0)) is None


def test_only_a_goal_that_names_compiled_rows_takes_them() -> None:
    # Twice as fast as ours, 200 times as fast as the slow one.
    compiled = replace(OURS, system="pocketfleet, compiled, 2 processes", seconds=0.25)
    rows = rows_of([LOOP, OURS, compiled, SLOW], all_rounds=4)

    assert ratio_of(rows, Goal(workload="mlp", ours="pocketfleet", peer="Flower", ratio=150.0)) == 100.0
    assert ratio_of(rows, Goal(workload="mlp", ours="pocketfleet, compiled", peer="Flower", ratio=150.0)) == 200.0
    best = fastest(rows, workload="mlp", system="pocketfleet")
    assert best is not None
    assert best.system == "pocketfleet, 2 processes"


def test_a_goal_is_judged_with_and_without_what_is_around_the_rounds() -> None:
    rows = rows_of([LOOP, replace(OURS, around_s=0.5), SLOW], all_rounds=4)

    # 4 s against half a second, and against a whole one.
    eight = judge(rows, Goal(workload="mlp", ours="pocketfleet", peer="plain", ratio=5.0))
    assert eight is not None
    assert (eight.measured, eight.met, eight.whole, eight.met_whole) == (8.0, True, 4.0, False)

    under = judge(rows, SecondsGoal(workload="mlp", ours="pocketfleet", seconds=0.8))
    assert under is not None
    assert (under.measured, under.met, under.whole, under.met_whole) == (0.5, True, 1.0, False)
    assert judge(rows, SecondsGoal(workload="mlp", ours="nobody", seconds=0.8)) is None


def test_no_workload_may_be_slower_than_the_loop_by_hand_on_as_many_processes() -> None:
    alike = {(goal.workload, goal.ours, goal.peer) for goal in GOALS if isinstance(goal, Goal) and goal.ratio == 1.0}
    assert alike == {
        (workload, f"pocketfleet, {processes}", f"plain PyTorch loop, {processes}")
        for workload in WORKLOADS
        for processes in ("1 process", "2 processes")
    }


def test_stages_are_the_mean_of_the_runs_and_heavy_above_the_limit() -> None:
    once = replace(OURS, stages={"training": 0.7, "physics": 0.2, "disk": 0.1})
    again = replace(OURS, stages={"training": 0.66, "physics": 0.2, "disk": 0.14})
    loop, ours = rows_of([LOOP, once, again], all_rounds=4)

    assert ours.stages == pytest.approx({"training": 0.68, "physics": 0.2, "disk": 0.12})
    assert heavy_stages(ours) == ["physics"]
    assert heavy_stages(loop) == []


@pytest.mark.parametrize("losses", [[0.8, 0.41, 0.2], [0.8, 0.4, float("nan")]])
def test_another_training_is_not_compared(losses: list[float]) -> None:
    with pytest.raises(CurvesDisagreeError, match="the losses of Flower are up to"):
        rows_of([LOOP, replace(SLOW, losses=losses)], all_rounds=4)


def test_curves_are_held_against_each_other_as_far_as_both_go() -> None:
    assert disagreement([1.0, 0.5], [1.0, 0.5, 0.1]) == 0.0
    # 0.005 of 0.5.
    assert disagreement([1.0, 0.505, 9.0], [1.0, 0.5]) == pytest.approx(0.01)
    with pytest.raises(ValueError, match="share no round"):
        disagreement([1.0], [1.0, 0.5])


def test_the_report_says_what_is_computed_and_keeps_every_run(tmp_path: Path) -> None:
    ours = replace(OURS, around_s=0.5, stages={"training": 0.6, "disk": 0.4})
    rows = rows_of([LOOP, ours, SLOW], all_rounds=4)
    write_report(
        tmp_path, titles={"mlp": "An MLP"}, rows=rows, results=[LOOP, ours, SLOW], circumstances={"command": "this one"}
    )

    text = (tmp_path / "peers.md").read_text()
    assert "| Flower | 80 | one run | 12,500.0 | 2 of 4 | 50.0 (computed) | 0.0 | 50.0 |" in text
    assert "| pocketfleet, 2 processes | 8,000 | one run | 125.0 | 4 of 4 | 0.5 | 0.5 | 1.0 |" in text
    # 50 s against half a second, and against a whole one: less than the goal of 100.
    assert "| mlp | pocketfleet, 2 processes | Flower | 100.00 | 100.00 | met | 50.00 | **missed** |" in text
    assert "| lenet | pocketfleet | Flower | 2.00 | not run | | | |" in text
    assert "| logistic | pocketfleet | | under 10 | not run | | | |" in text
    assert (
        "| logistic | Flower 1.0.0, *published*: README of microsoft/msrflute@0e8762b, another machine | 100 |" in text
    )
    assert "| mlp | pocketfleet, 2 processes | 60.0% | 40.0% | **disk** |" in text
    # Of one goal both sides ran.
    assert "By the rounds alone 1 of 1 are met; with what is around them, which no peer is charged for, 0." in text
    assert "command: this one" in text
    kept = json.loads((tmp_path / "peers.json").read_text())
    assert [run["seconds"] for run in kept["runs"]] == [4.0, 0.5, 25.0]
    assert kept["goals"][0] | {"measured": 100.0, "met": True, "whole": 50.0, "met_whole": False} == kept["goals"][0]
    assert kept["goals"][1]["met"] is None
    assert (tmp_path / "peers.png").stat().st_size > 0


def test_seconds_of_all_rounds_are_judged_beside_what_is_published(tmp_path: Path) -> None:
    loop, ours = replace(LOOP, workload="logistic"), replace(OURS, workload="logistic", seconds=9.0, around_s=2.0)
    rows = rows_of([loop, ours], all_rounds=4)
    write_report(tmp_path, titles={"logistic": "LR"}, rows=rows, results=[loop, ours], circumstances={})

    text = (tmp_path / "peers.md").read_text()
    assert "| logistic | pocketfleet, 2 processes | 4 | under 10 | 9.0 | met | 11.0 | **missed** |" in text
    # 30:14 and 3:20.
    published = [line for line in text.splitlines() if "*published*" in line]
    assert [line.split("|")[5].strip() for line in published] == ["1,814", "200"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("peers") / "tiny"
    plan = Plan(
        name="tiny",
        title="Twenty small devices, twelve a round",
        model="mlp",
        devices=20,
        cohort=12,
        rounds=3,
        steps=4,
        batch_size=5,
        learning_rate=0.1,
    )
    make_workload(plan, folder)
    return folder


def by_hand(workload: Workload) -> list[float]:
    loop = Loop(workload)
    places = range(workload.cohorts.shape[1])
    return play(workload, workload.rounds, functools.partial(loop.train, places=places), loop.evaluate)[1]


def test_the_simulation_and_a_plain_loop_do_the_same_training(tiny: Path) -> None:
    workload = Workload.load(tiny)
    assert workload.cohorts.shape == (3, 12)
    # 25 examples a device, 5 held out.
    assert (workload.x.shape, workload.orders.shape) == ((20, 25, 13), (3, 12, 20))

    losses, ours = by_hand(workload), measure(tiny, rounds=3, engine="1 process")
    # Looked into by a run of its own, which learnt the same.
    assert sum(ours.stages.values()) == pytest.approx(1.0)
    assert ours.stages["training"] > 0.0
    assert ours.device_steps == 3 * 12 * 4
    assert losses[-1] < 0.9 * losses[0]
    # float32 rounding; a wrong batch shows in the third digit, see below.
    assert len(ours.losses) == len(losses) == 4
    assert disagreement(ours.losses, losses) < 1e-5


def test_other_batches_than_those_laid_down_are_noticed(tiny: Path) -> None:
    workload = Workload.load(tiny)
    # All rounds as the first one's: its devices, in its order.
    wrong = replace(workload, cohorts=workload.cohorts[[0, 0, 0]], orders=workload.orders[[0, 0, 0]])
    assert disagreement(by_hand(wrong), by_hand(workload)) > 1e-3
