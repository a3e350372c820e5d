"""What no simulation may violate, whatever its settings: sums, bounds, and the order of time."""

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import tiny_weights

from pocketfleet.device_sim.availability import FlashDay
from pocketfleet.device_sim.buffered_rounds import BufferedRounds
from pocketfleet.device_sim.charging import CHARGING_EFFICIENCY_RATIO, FULL_POWER_RATIO
from pocketfleet.device_sim.clock_only import ClockOnly
from pocketfleet.device_sim.day_changes import CHARGING, IDLE
from pocketfleet.device_sim.device_store import DeviceStore
from pocketfleet.device_sim.eligibility import Rule
from pocketfleet.device_sim.events import EventLog, in_order
from pocketfleet.device_sim.fleet import DeviceOverride, build_fleet
from pocketfleet.device_sim.population import Population
from pocketfleet.device_sim.run_directory import RunDirectory
from pocketfleet.device_sim.simulator import Outcome, Schedule, Simulator
from pocketfleet.device_sim.synchronous_rounds import SynchronousRounds
from pocketfleet.device_sim.tables import EventTotals
from pocketfleet.device_sim.transfer import Outage
from pocketfleet.device_sim.workload import Workload
from pocketfleet.training.round import BufferedPlan, RoundPlan

DEVICES = 80
FLEET = build_fleet(
    devices=DEVICES,
    seed=9,
    # Links are lost about once a second; one outage in seven is fatal.
    outage=Outage(mean_s=5.0, limit_s=10.0),
    overrides=[DeviceOverride(devices="all", link_losses_per_hour=3000.0, battery_ratio=0.6)],
)
PLANS = st.builds(
    RoundPlan,
    cohort=st.integers(1, 8),
    over_selection=st.sampled_from([1.0, 1.3, 2.0]),
    minimum_ratio=st.sampled_from([0.0, 0.6]),
    deadline_s=st.sampled_from([30.0, 600.0]),
    interval_s=st.sampled_from([0.0, 1800.0]),
    pace_s=st.sampled_from([0.0, 900.0]),
    selection_window_s=st.sampled_from([0.0, 60.0, 1000.0]),
    population_cap=st.sampled_from([0, 10, 40]),
    max_participations=st.sampled_from([0, 0, 1, 3]),
)
BUFFERED_PLANS = st.builds(
    BufferedPlan,
    buffer=st.integers(1, 8),
    concurrency=st.integers(1, DEVICES + 10),
    max_staleness=st.sampled_from([0, 3, 100]),
    deadline_s=st.sampled_from([30.0, 600.0, 4000.0]),
)


def simulated(
    folder: Path, plan: RoundPlan | BufferedPlan, *, seed: int, step_s: float
) -> tuple[Outcome, Population, pd.DataFrame, pd.DataFrame]:
    """Three hours of phones that train on whatever they have; outcome, phones, events and rounds."""
    log = EventLog()
    population = Population(
        fleet=FLEET,
        availability=FlashDay(seed=seed),
        rule=Rule(min_battery_ratio=0.5),
        workload=Workload(
            num_training=np.arange(1, DEVICES + 1),
            steps=np.full(DEVICES, 7),
            step_s=np.full(DEVICES, step_s),
            batch_size=8,
            training_memory_bytes=1,
            bundle_bytes=3_000_000,
            weights_bytes=250_000,
            update_bytes=250_000,
            partial_work=seed % 2 == 0,
        ),
        seed=seed,
        log=log,
    )
    directory = RunDirectory.create(folder / "run", "", force=False)
    try:
        outcome = Simulator(
            rounds=(SynchronousRounds if isinstance(plan, RoundPlan) else BufferedRounds)(plan, population, log),
            schedule=Schedule(count=12, horizon_s=3 * 3600.0, evaluate_every=1, checkpoint_share=0.5),
            population=population,
            model=ClockOnly(weights=tiny_weights(), store=DeviceStore(folder / "run" / "device_store", devices=0)),
            directory=directory,
            log=log,
            observer=lambda _: None,
        ).run()
        events = pd.concat(in_order(directory.parts("events")), ignore_index=True)
        return outcome, population, events, directory.read_parts("rounds")
    finally:
        directory.close()


@settings(max_examples=20, deadline=None)
@given(st.one_of(PLANS, BUFFERED_PLANS), st.integers(0, 10**6), st.sampled_from([0.5, 20.0, 300.0]))
def test_joules_bytes_seconds_batteries_devices_and_time(
    plan: RoundPlan | BufferedPlan, seed: int, step_s: float
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        outcome, population, events, rounds = simulated(Path(folder), plan, seed=seed, step_s=step_s)
    if outcome.in_flight == len(events) == 0:
        return  # nobody came in these hours
    of_devices, column = events[events["device"] >= 0], population.ledger.column

    # Time never goes back, and ends where the run does.
    assert (events["time_s"].diff().dropna() >= 0.0).all()
    assert (rounds["closed_s"].diff().dropna() >= 0.0).all()
    assert (rounds["opened_s"] <= rounds["closed_s"]).all()
    assert events["time_s"].max() <= outcome.virtual_s or len(events) == 0

    # A round's figures are the sums over its events, the run's those over its rounds and what is under way.
    totals = EventTotals(len(rounds))
    totals.add(events)
    table = totals.round_table(rounds)
    for row in table.itertuples():
        own = of_devices[of_devices["round"] == row.round]
        assert row.energy_joules == pytest.approx(own["joules"].sum())
        assert row.train_s == pytest.approx(own.loc[own["kind"] == "train", "seconds"].sum())
        assert row.downlink_bytes == own.loc[own["kind"] == "download", "bytes"].sum()
        assert row.uplink_bytes == own.loc[own["kind"] == "upload", "bytes"].sum()
        assert row.metered_bytes == own["metered_bytes"].sum() <= own["bytes"].sum()
        assert row.assigned == (own["kind"] == "assign").sum()
        # In a buffer are reports of assignments of earlier rounds too.
        accepted = ((own["kind"] == "report") & (own["reason"] == "accepted")).sum()
        assert row.accepted == (accepted if isinstance(plan, RoundPlan) else plan.buffer)

    # So are a device's.
    by_device = of_devices.groupby("device")
    for name, sums in {
        "energy_joules": by_device["joules"].sum(),
        "steps": by_device["steps"].sum(),
        "train_s": of_devices[of_devices["kind"] == "train"].groupby("device")["seconds"].sum(),
        "metered_bytes": by_device["metered_bytes"].sum(),
        "downlink_bytes": of_devices[of_devices["kind"] == "download"].groupby("device")["bytes"].sum(),
    }.items():
        np.testing.assert_allclose(column[name], sums.reindex(range(DEVICES), fill_value=0), err_msg=name)

    # Each assignment ends once, or is under way; its stages fill the time between, one after another.
    ends = of_devices["kind"].isin(["report", "drop"])
    assert (of_devices["kind"] == "assign").sum() == ends.sum() + outcome.in_flight
    rows = of_devices.sort_values("device", kind="stable")
    assigned, ended = (rows["kind"] == "assign").to_numpy(), rows["kind"].isin(["report", "drop"]).to_numpy()
    same = rows["device"].to_numpy()[1:] == rows["device"].to_numpy()[:-1]
    # Nobody is in two rounds at once: what follows an end is an assignment, and only that does.
    np.testing.assert_array_equal(assigned[1:][same], ended[:-1][same])
    assert assigned[0]
    if isinstance(plan, BufferedPlan):
        at_work = np.cumsum(
            (events["kind"] == "assign").astype(int) - events["kind"].isin(["report", "drop"]).astype(int)
        )
        assert at_work.max() <= plan.concurrency
    attempt = np.cumsum(assigned)
    spent_s = rows["seconds"].groupby(attempt).cumsum().to_numpy()
    began_s = rows["time_s"].to_numpy()[assigned][attempt - 1]
    np.testing.assert_allclose(rows["time_s"], began_s + spent_s)

    # A battery is between empty and full, and holds what was in it, less what was drawn, and what a charger brought.
    level = population.state()["battery.level_joules"]
    assert np.all((level >= 0.0) & (level <= FLEET.battery_capacity_joules))
    settled, charged_joules, most_joules = charged(population, seed=seed)
    assert np.all(charged_joules[settled] >= -1e-3)
    assert np.all(charged_joules[settled] <= most_joules[settled] + 1e-3)


def charged(population: Population, *, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Devices without an attempt under way; joules that must have come from their chargers; and the most that can."""
    state, column, at_s = population.state(), population.ledger.column, population.state()["battery.at_s"]
    changes = FlashDay(seed=seed).changes(np.arange(DEVICES), np.zeros(DEVICES), at_s)
    start_s, end_s = changes.pieces()
    used_s, charging_s = (
        ((end_s - start_s) * mask).sum(axis=1) for mask in ((changes.code & IDLE) == 0, (changes.code & CHARGING) > 0)
    )
    drawn = column["energy_joules"] + FLEET.idle_watts * at_s + FLEET.screen_watts * used_s
    came = state["battery.level_joules"] - 0.6 * FLEET.battery_capacity_joules + drawn
    most = CHARGING_EFFICIENCY_RATIO * FULL_POWER_RATIO * FLEET.charger_watts * charging_s
    ended = column["accepted"] + column["rejected"] + column["dropped"]
    return column["assigned"] == ended, came, most


def test_the_settings_above_reach_drops_lateness_and_rounds_without_end(tmp_path: Path) -> None:
    # The property has something to say: of these settings all kinds of ends come.
    seen: set[str] = set()
    for number, plan in enumerate(
        [
            RoundPlan(cohort=2, over_selection=2.0, deadline_s=600.0),
            RoundPlan(cohort=8, over_selection=1.3, deadline_s=30.0, minimum_ratio=0.0),
        ]
    ):
        _, population, events, _ = simulated(tmp_path / str(number), plan, seed=number, step_s=20.0)
        settled, came, most = charged(population, seed=number)
        trained = settled & (population.ledger.column["energy_joules"] > 10.0)
        assert (trained & (most > 100.0) & (came > 100.0)).any()
        seen |= set(events["kind"].astype(str) + ":" + events["reason"].astype(str))
    assert {"report:accepted", "report:late", "drop:link_lost", "drop:deadline", "close:cohort"} <= seen
