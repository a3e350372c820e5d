import numpy as np
import pandas as pd
import pytest

from pocketfleet.device_sim.events import EventLog
from pocketfleet.device_sim.tables import (
    EventTotals,
    final_states,
    last_metrics,
    personalisation,
    release_rows,
    server_rows,
)


def row(index: int, **changed: object) -> dict[str, object]:
    values: dict[str, object] = {
        "round": index,
        "model_version": index + 1,
        "opened_s": 0.0,
        "closed_s": 1.0,
        "outcome": "cohort",
        "looks": 5,
        "assigned": 3,
        "accepted": 1,
        "withdrawn": 0,
        "turned_away": 0,
        "held": 0,
        "candidates": 0,
        "refused": 0,
        "num_examples": 8,
        "steps": 1,
        "train_loss": 0.5,
        "staleness_mean": 0.0,
        "staleness_max": 0,
        "non_finite": 0,
    }
    return values | changed


def events() -> pd.DataFrame:
    log = EventLog()
    log.add(1.0, 0, 0, "download", bytes=100, metered_bytes=100, joules=1.0)
    log.add(1.5, 0, 0, "train", seconds=0.5)
    log.add(2.0, 0, 0, "upload", bytes=10, metered_bytes=7, joules=2.0)
    log.add(2.0, 0, 0, "report", reason="accepted")
    log.add(3.0, 1, 0, "download", bytes=50, joules=4.0, reason="link_lost")
    log.add(3.0, 1, 0, "drop", reason="link_lost")
    log.add(3.5, 2, 0, "train", seconds=2.0, reason="deadline")
    log.add(4.0, -1, 0, "close", reason="cohort")
    log.add(9.0, 2, 0, "report", reason="late")  # after its round closed
    log.add(9.5, 1, 1, "drop", reason="deadline")
    return log.take()


def totals(events: pd.DataFrame, *, rounds: int, pieces: int = 1) -> EventTotals:
    made = EventTotals(rounds)
    for piece in np.array_split(np.arange(len(events)), pieces):
        made.add(events.iloc[piece])
    return made


@pytest.mark.parametrize("pieces", [1, 3, 10])
def test_a_rounds_figures_are_the_sums_over_its_events(pieces: int) -> None:
    made = totals(events(), rounds=2, pieces=pieces)
    table = made.round_table(server_rows([row(0), row(1)]))
    assert table["downlink_bytes"].tolist() == [150, 0]
    assert table["uplink_bytes"].tolist() == [10, 0]
    assert table["metered_bytes"].tolist() == [107, 0]
    assert table["energy_joules"].tolist() == [7.0, 0.0]
    assert table["train_s"].tolist() == [2.5, 0.0]
    assert table["dropouts_link_lost"].tolist() == [1, 0]
    assert table["dropouts_late"].tolist() == [1, 0]
    assert table["dropouts_deadline"].tolist() == [0, 1]
    assert (made.assigned, made.accepted, made.downlink_bytes, made.uplink_bytes) == (0, 1, 150, 10)
    assert (made.energy_joules, made.metered_bytes) == (7.0, 107)


def test_what_belongs_to_a_round_that_never_closed_counts_in_the_run_alone() -> None:
    made = totals(events(), rounds=1)
    assert "dropouts_deadline" in made.round_table(server_rows([row(0)]))
    assert made.round_table(server_rows([row(0)]))["dropouts_deadline"].tolist() == [0]
    assert made.dropouts["deadline"] == 1


def test_a_run_without_rounds_or_events_has_empty_tables() -> None:
    made = totals(EventLog().take(), rounds=0)
    table = made.round_table(server_rows([]))
    assert len(table) == 0
    assert {"round", "outcome", "downlink_bytes", "energy_joules"} <= set(table.columns)
    assert made.dropouts == {}


def test_dropouts_are_drops_and_rejected_reports() -> None:
    assert totals(events(), rounds=2).dropouts == {"deadline": 1, "late": 1, "link_lost": 1}


def test_last_metrics_are_of_evaluations_alone() -> None:
    rounds = server_rows([row(n, test_mse=float(n) if n % 2 == 0 else np.nan) for n in range(13)])
    # Evaluated in rounds 0, 2, ..., 12; the last five are 4, 6, 8, 10, 12.
    assert last_metrics(rounds) == {"last": {"test_mse": 12.0}, "mean_of_last_five": {"test_mse": 8.0}}
    assert last_metrics(server_rows([row(0)])) == {"last": {}, "mean_of_last_five": {}}


def test_personalisation_is_over_devices_that_took_part() -> None:
    devices = pd.DataFrame({"metric_global": [1.0, np.nan, 3.0], "metric_personalised": [0.5, np.nan, 1.0]})
    assert personalisation(devices, "mse") == {
        "metric": "mse",
        "devices": 2,
        "global": pytest.approx(2.0),
        "personalised": pytest.approx(0.75),
    }
    assert personalisation(devices.iloc[1:2], "mse") == {"metric": "mse", "devices": 0}


def test_sums_of_joules_have_the_same_bits_however_the_events_come() -> None:
    log = EventLog()
    for number in range(200):
        log.add(float(number), number % 7, number // 50, "train", seconds=0.1 * number, joules=1.0 / (number + 3))
    taken = log.take()
    whole, parts = totals(taken, rounds=3), totals(taken, rounds=3, pieces=13)
    assert parts.energy_joules == whole.energy_joules
    rows = server_rows([row(0), row(1), row(2)])
    pd.testing.assert_frame_equal(parts.round_table(rows), whole.round_table(rows), check_exact=True)


def test_versions_are_counted_by_what_they_became_last() -> None:
    became = [(0, "retired"), (1, "candidate"), (1, "released"), (2, "candidate"), (2, "held_back"), (3, "candidate")]
    rows = [
        {
            "time_s": 1.0,
            "version": version,
            "round": version - 1,
            "state": state,
            "reason": "made",
            "evaluations": 0,
            "tried": float("nan"),
            "released": float("nan"),
        }
        for version, state in became
    ]
    assert final_states(release_rows(rows)) == {"candidate": 1, "held_back": 1, "released": 1}
    assert final_states(release_rows([])) == {}
