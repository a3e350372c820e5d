"""Trials on the virtual clock, of a task that can be worked out by hand."""

import json
from dataclasses import replace

import numpy as np
import pytest
from scripted import ScriptedDay
from tiny import TinyTask, tiny_data, tiny_weights

from pocketfleet.device_sim.eligibility import Rule
from pocketfleet.device_sim.evaluators import Evaluators
from pocketfleet.device_sim.events import EventLog
from pocketfleet.device_sim.fleet import DeviceOverride, build_fleet
from pocketfleet.device_sim.ledger import Ledger
from pocketfleet.device_sim.release_trials import ReleaseTrials
from pocketfleet.device_sim.workload import Workload
from pocketfleet.export.session import EagerSession
from pocketfleet.training.release_gate import canary_share
from pocketfleet.training.release_verdict import ReleasePlan
from pocketfleet.training.train_step import StepSettings
from pocketfleet.training.weights import Weights

DEVICES = 9
# Users 4 to 8 hold 5 to 9 examples, one of them held out, with targets 5 to 9.
HOLDING = [4, 5, 6, 7, 8]
PLAN = ReleasePlan(
    seed=1,
    evaluation_reports=5,
    canary_ratio=0.0,
    canary_reports=1,
    over_selection=1.0,
    minimum_ratio=0.6,
    report_within_s=600.0,
    deadline_s=5000.0,
)


class Run:
    """Trials of versions whose one weight is given."""

    def __init__(self, plan: ReleasePlan, *gaps: tuple[int, str, float, float]) -> None:
        self.newest: Weights = tiny_weights(0.0)
        self.log, self.ledger = EventLog(), Ledger(DEVICES)
        count = np.arange(1, DEVICES + 1)
        task = TinyTask(users=DEVICES)
        override = DeviceOverride(devices="all", down_bits_per_s=8e6, latency_s=0.0)
        self.trials = ReleaseTrials(
            plan,
            metric="loss",
            evaluators=Evaluators(
                fleet=replace(
                    build_fleet(devices=DEVICES, seed=1, overrides=[override]),
                    down_variation_ratio=np.zeros(DEVICES),
                ),
                availability=ScriptedDay(*gaps),
                rule=Rule(),
                workload=Workload(
                    num_training=count - count // 5,
                    num_examples=count,
                    steps=np.ones(DEVICES, dtype=np.int64),
                    # A batch of both models takes 2, 4, ... s: no two phones end together.
                    step_s=3.0 * count,
                    batch_size=8,
                    training_memory_bytes=1,
                    bundle_bytes=0,
                    weights_bytes=500_000,
                    update_bytes=100,
                    partial_work=True,
                ),
                seed=1,
            ),
            session=EagerSession(task, task.make_model(), StepSettings()),
            data=tiny_data(task, devices=DEVICES),
            newest=lambda: self.newest,
            ledger=self.ledger,
            log=self.log,
        )

    def made(self, version: int, w: float, now_s: float) -> None:
        self.newest = tiny_weights(w)
        self.trials.made(version, round_index=version - 1, now_s=now_s)

    def became(self) -> list[tuple[float, int, str, str]]:
        return [(row["time_s"], row["version"], row["state"], row["reason"]) for row in self.trials.take_changes()]


def test_a_better_version_is_released_when_the_last_phone_reports() -> None:
    run = Run(PLAN)
    run.made(1, 6.0, 10.0)
    # Phone 8, the slowest of the five, needs 1 s for two models and 18 s for a batch of each.
    run.trials.play(28.9)
    assert run.trials.released == 0
    run.trials.play(29.0)
    assert run.trials.released == 1
    assert run.trials.released_weights.trainable["w"] == 6.0
    rows = run.trials.take_changes()
    assert [(row["time_s"], row["version"], row["state"]) for row in rows] == [
        (10.0, 1, "candidate"),
        (29.0, 0, "retired"),
        (29.0, 1, "released"),
    ]
    # On targets 5 to 9 a weight of 6 is off by 1, 0, 1, 2, 3, and one of 0 by 5 to 9.
    assert (rows[-1]["evaluations"], rows[-1]["tried"], rows[-1]["released"]) == (
        5,
        15 / 5,
        (25 + 36 + 49 + 64 + 81) / 5,
    )
    events = run.log.take()
    evaluations = events[events["kind"] == "evaluate"]
    assert evaluations["device"].tolist() == HOLDING
    assert evaluations["time_s"].tolist() == [10.0 + 1.0 + 2.0 * (device + 1) for device in HOLDING]
    assert set(evaluations["reason"]) == {"accepted"}
    assert events.loc[events["kind"] == "release", "reason"].tolist() == ["candidate", "retired", "released"]
    assert run.ledger.column["downlink_bytes"].tolist() == [0] * 4 + [1_000_000] * 5


def test_a_worse_one_is_held_back_and_the_newest_is_tried_next() -> None:
    run = Run(PLAN)
    run.made(1, -6.0, 0.0)
    run.trials.play(5.0)
    run.made(2, 6.0, 5.0)
    run.trials.finish(1000.0)
    # The second trial begins when the first is over, at 19 s, and takes as long.
    assert run.became() == [
        (0.0, 1, "candidate", "made"),
        (5.0, 2, "waiting", "made"),
        (19.0, 1, "held_back", "worse"),
        (19.0, 2, "candidate", "made"),
        (38.0, 0, "retired", "newer"),
        (38.0, 2, "released", "passed"),
    ]
    assert run.trials.now_s == 38.0


def test_phones_that_are_away_are_looked_at_again() -> None:
    run = Run(PLAN, (4, "idle", 0.0, 1000.0), (5, "idle", 0.0, 1000.0))
    run.made(1, 6.0, 0.0)
    run.trials.finish(1e6)
    # They come at 1,800 s, the second look after the first; phone 5 needs 1 s and 12 s.
    assert run.became()[-1] == (1813.0, 1, "released", "passed")


def test_the_deadline_judges_those_that_came() -> None:
    run = Run(PLAN, (4, "idle", 0.0, 1e9), (5, "idle", 0.0, 1e9))
    run.made(1, 6.0, 0.0)
    run.trials.finish(1e6)
    # Three of five suffice.
    assert run.became()[-1] == (5000.0, 1, "released", "passed")
    away = Run(PLAN, *((device, "idle", 0.0, 1e9) for device in (4, 5, 6)))
    away.made(1, 6.0, 0.0)
    away.trials.finish(1e6)
    assert away.became()[-1] == (5000.0, 1, "held_back", "too_few")


def test_who_is_asked_in_excess_is_late() -> None:
    run = Run(replace(PLAN, evaluation_reports=2, over_selection=2.5))
    run.made(1, 6.0, 0.0)
    run.trials.play(1e6)
    events = run.log.take()
    evaluations = events[events["kind"] == "evaluate"]
    assert evaluations["reason"].tolist() == ["accepted"] * 2 + ["late"] * 3
    assert run.became()[-1] == (13.0, 1, "released", "passed")


def test_a_canary_is_evaluated_by_its_share() -> None:
    plan = replace(PLAN, canary_ratio=0.5, canary_reports=1)
    run = Run(plan)
    share = canary_share(plan, 1, np.arange(DEVICES))
    assert 0 < share[HOLDING].sum() < len(HOLDING)
    run.made(1, 6.0, 0.0)
    run.trials.finish(1e6)
    events = run.log.take()
    evaluations = events[events["kind"] == "evaluate"]
    assert share[evaluations["device"].tolist()[5:]].all()
    assert [row[2] for row in run.became()] == ["candidate", "canary", "retired", "released"]


def test_a_horizon_leaves_a_trial_as_it_is() -> None:
    run = Run(PLAN)
    run.made(1, 6.0, 0.0)
    run.trials.finish(18.9)
    assert (run.trials.released, len(run.became())) == (0, 1)


@pytest.mark.parametrize("at_s", [0.0, 5.0, 13.0, 19.0, 40.0])
def test_a_checkpoint_goes_on_to_the_same(at_s: float) -> None:
    plan = replace(PLAN, canary_ratio=0.8, canary_reports=2)
    whole = Run(plan)
    whole.made(1, 6.0, 0.0)
    whole.trials.play(at_s)
    before = whole.became()
    values, arrays, tensors = whole.trials.state()
    again = Run(plan)
    again.newest = whole.newest
    again.trials.restore(
        json.loads(json.dumps(values)),
        {name: column.copy() for name, column in arrays.items()},
        {name: value.clone() for name, value in tensors.items()},
    )
    for run in (whole, again):
        run.trials.play(50.0)
        run.made(2, 7.0, 50.0)
        run.trials.finish(1e6)
    rest = whole.became()
    assert rest == again.became()
    assert [row[2] for row in before + rest][-1] == "released"
    assert again.trials.released == whole.trials.released == 2
    assert again.trials.released_weights.trainable["w"] == 7.0
