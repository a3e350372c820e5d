"""Rounds on the virtual clock, of a task that can be worked out by hand and phones whose days are written by hand."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scripted import ScriptedDay
from tiny import ALGORITHM, TinyTask, make_client, tiny_weights

from pocketfleet.device_sim import simulator
from pocketfleet.device_sim.cohort import one_by_one_chunk
from pocketfleet.device_sim.device_store import DeviceStore
from pocketfleet.device_sim.eligibility import Rule
from pocketfleet.device_sim.events import EventLog, in_order
from pocketfleet.device_sim.fleet import DeviceOverride, build_fleet
from pocketfleet.device_sim.global_model import GlobalModel
from pocketfleet.device_sim.population import Population
from pocketfleet.device_sim.run_directory import RunDirectory
from pocketfleet.device_sim.simulator import Outcome, Schedule, Simulator
from pocketfleet.device_sim.synchronous_rounds import SynchronousRounds
from pocketfleet.device_sim.workers import Workers
from pocketfleet.device_sim.workload import Workload
from pocketfleet.export.session import EagerSession
from pocketfleet.training.round import RoundPlan
from pocketfleet.training.train_step import StepSettings

DEVICES = 4
STEP_S = 5.0
Simulated = tuple[Outcome, pd.DataFrame, list[dict[str, Any]]]


@pytest.fixture
def simulated(tmp_path: Path) -> Callable[..., Simulated]:
    """Runs a simulation of ``DEVICES`` phones, one step of 5 s each; returns outcome, events and rounds."""

    def run(
        plan: RoundPlan,
        *gaps: tuple[int, str, float, float],
        count: int = 1,
        horizon_s: float = 1e5,
        checkpoint_share: float = 0.5,
    ) -> Simulated:
        log, rows = EventLog(), []
        override = DeviceOverride(devices="all", battery_ratio=1.0, latency_s=0.01, link_losses_per_hour=0.0)
        population = Population(
            fleet=build_fleet(devices=DEVICES, seed=1, overrides=[override]),
            availability=ScriptedDay(*gaps),
            rule=Rule(),
            workload=Workload(
                num_training=np.arange(1, DEVICES + 1),
                steps=np.ones(DEVICES, dtype=np.int64),
                step_s=np.full(DEVICES, STEP_S),
                batch_size=8,
                training_memory_bytes=1,
                bundle_bytes=1000,
                weights_bytes=100,
                update_bytes=100,
                partial_work=True,
            ),
            seed=1,
            log=log,
        )
        task = TinyTask()
        directory = RunDirectory.create(tmp_path / "run", "", force=True)
        try:
            model = GlobalModel(
                weights=tiny_weights(),
                algorithm=ALGORITHM,
                session=EagerSession(task, task.make_model(), StepSettings()),
                test=task.test_examples(),
                headline="mse",
                trainers=Workers(make_client, processes=1),
                store=DeviceStore(tmp_path / "run" / "device_store", devices=4),
                population=4,
                chunk_size=one_by_one_chunk,
            )
            outcome = Simulator(
                rounds=SynchronousRounds(plan, population, log),
                schedule=Schedule(
                    count=count, horizon_s=horizon_s, evaluate_every=2, checkpoint_share=checkpoint_share
                ),
                population=population,
                model=model,
                directory=directory,
                log=log,
                observer=lambda row: rows.append(dict(row)),
            ).run()
            return outcome, pd.concat(in_order(directory.parts("events")), ignore_index=True), rows
        finally:
            directory.close()

    return run


def plan(**changed: float) -> RoundPlan:
    return RoundPlan(
        **({"cohort": DEVICES, "over_selection": 1.0, "minimum_ratio": 1.0, "deadline_s": 100.0} | changed)
    )


def test_a_round_of_everyone(simulated) -> None:
    outcome, events, rows = simulated(plan())
    assert (outcome.reason, len(rows)) == ("rounds", 1)
    assert rows[0]["accepted"] == rows[0]["assigned"] == DEVICES
    # Users with 1, 2, 3, 4 examples move half the way to 1, 2, 3, 4: (0.5 + 2 + 4.5 + 8) / 10 = 1.5. On the test
    # targets 1 and 3 that is 0.25 and 2.25. Version 1 is no multiple of 2 but the last one: it is evaluated.
    assert rows[0]["test_mse"] == pytest.approx(1.25)
    assert outcome.metrics_initial["test_mse"] == pytest.approx(5.0)
    ends = events[events["kind"] == "report"]
    assert rows[0]["closed_s"] == ends["time_s"].max() == outcome.virtual_s
    assert rows[0]["closed_s"] > STEP_S


def test_the_cohort_closes_a_round_and_the_rest_are_late(simulated) -> None:
    _, events, rows = simulated(plan(cohort=2, over_selection=2.0), count=2)
    first = events[events["round"] == 0]
    reports = first[first["kind"] == "report"]["reason"].tolist()
    assert reports == ["accepted", "accepted", "late", "late"]
    assert rows[0]["closed_s"] == first[first["reason"] == "accepted"]["time_s"].iloc[1]
    # The second round opens at once, with those who are free; nobody is in two rounds at a time.
    second = events[(events["round"] == 1) & (events["kind"] == "assign")]
    assert second["time_s"].iloc[0] == rows[0]["closed_s"]
    busy_until = first[first["kind"] == "report"].set_index("device")["time_s"]
    assert all(assigned.time_s >= busy_until[assigned.device] for assigned in second.itertuples())


def test_a_device_that_drops_out_comes_back_to_its_own_slot(simulated) -> None:
    # Device 1 leaves Wi-Fi at 2 s for a second; its back-off is 30 s.
    _, events, rows = simulated(plan(), (1, "wifi", 2.0, 3.0))
    of_it = events[events["device"] == 1]
    assert of_it["kind"].tolist() == [
        "assign",
        "download",
        "train",
        "drop",
        "assign",
        "download",
        "train",
        "upload",
        "report",
    ]
    assert of_it[of_it["kind"] == "drop"][["time_s", "reason"]].values.tolist() == [[2.0, "metered"]]
    assert of_it[of_it["kind"] == "assign"]["time_s"].tolist() == [0.0, 32.0]
    assert (rows[0]["accepted"], rows[0]["assigned"], rows[0]["withdrawn"]) == (4, 5, 1)
    # Its training was cut before a step was done: 5 s of step, 2 s of time.
    assert of_it[of_it["kind"] == "train"]["steps"].tolist() == [0, 1]


def test_a_round_below_its_minimum_is_abandoned_and_makes_no_model(simulated) -> None:
    # Two of four never have Wi-Fi; all four are wanted.
    gaps = [(device, "wifi", -1.0, 1e9) for device in (0, 3)]
    outcome, events, rows = simulated(plan(deadline_s=50.0), *gaps, horizon_s=120.0)
    assert outcome.reason == "horizon"
    assert outcome.virtual_s == 120.0
    assert [row["outcome"] for row in rows] == ["abandoned", "abandoned"]
    assert [row["closed_s"] for row in rows] == [50.0, 100.0]
    assert all(row["model_version"] == 0 and np.isnan(row["train_loss"]) for row in rows)
    assert sorted(set(events[events["kind"] == "assign"]["device"])) == [1, 2]


def test_a_deadline_with_enough_reports_makes_a_model(simulated) -> None:
    gaps = [(device, "wifi", -1.0, 1e9) for device in (0, 3)]
    _, _, rows = simulated(plan(deadline_s=50.0, minimum_ratio=0.5), *gaps)
    assert [(row["outcome"], row["closed_s"], row["accepted"]) for row in rows] == [("deadline", 50.0, 2)]
    # Users 1 and 2, 2 and 3 examples, half the way to 2 and 3: (2 + 4.5) / 5 = 1.3; squares 0.09 and 2.89.
    assert rows[0]["test_mse"] == pytest.approx(1.49)


def test_phones_are_asked_when_they_become_free(simulated) -> None:
    # Everyone is in use until 500 s; the first look after the start is at that change.
    gaps = [(device, "idle", -1.0, 500.0) for device in range(DEVICES)]
    _, events, rows = simulated(plan(), *gaps)
    assert events[events["kind"] == "assign"]["time_s"].tolist() == [500.0] * DEVICES
    assert rows[0]["opened_s"] == 500.0


def test_rounds_keep_to_their_schedule(simulated) -> None:
    _, _, rows = simulated(plan(interval_s=1000.0), count=3)
    assert [row["opened_s"] for row in rows] == [0.0, 1000.0, 2000.0]


def test_models_are_evaluated_as_scheduled(simulated) -> None:
    _, _, rows = simulated(plan(), count=5)
    assert ["test_mse" in row for row in rows] == [False, True, False, True, True]


def test_a_round_asks_devices_in_an_order_of_its_own(simulated) -> None:
    _, events, rows = simulated(plan(cohort=1), count=12)
    chosen = events[events["kind"] == "assign"]["device"]
    # Twelve draws of one in four: some device is left out of all with probability 4 * 0.75**12 = 0.13 at most, but
    # always the same one is 4 ** -11.
    assert chosen.nunique() > 1
    assert all(row["turned_away"] >= 2 for row in rows)


@pytest.mark.parametrize(("share", "written"), [(0.0, 2), (1.0, 7)])
def test_checkpoints_keep_to_their_share_of_the_time(simulated, tmp_path: Path, share: float, written: int) -> None:
    _, events, rows = simulated(plan(), count=5, checkpoint_share=share)
    assert (len(rows), events["round"].max()) == (5, 4)
    # One before the first round, one after the last, and one after each round where they may take all the time.
    assert latest_checkpoint(tmp_path) + 1 == written


def latest_checkpoint(folder: Path) -> int:
    return max(int(number.name) for number in (folder / "run" / "checkpoints").iterdir())


def test_events_are_written_before_they_fill_the_memory(
    simulated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, rows = simulated(plan(), count=6, checkpoint_share=0.0)
    assert latest_checkpoint(tmp_path) == 1
    # A round's rows: four phones' assignment, three stages and report, and the closing. Two rounds fill it.
    monkeypatch.setattr(simulator, "_MOST_ROWS", 2 * (4 * 5 + 1))
    _, events, rows = simulated(plan(), count=6, checkpoint_share=0.0)
    assert (len(rows), len(events)) == (6, 6 * 21)
    # The first, one after every second round, and the last.
    assert latest_checkpoint(tmp_path) + 1 == 1 + 3 + 1
