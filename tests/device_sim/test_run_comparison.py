"""A run's figures against the same computed by hand from its Parquet files; the keys that differ; differences."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pocketfleet import Bundle, Experiment, Run, simulate
from pocketfleet.device_sim.comparison_tables import comparison_tables, csv_text
from pocketfleet.device_sim.run_comparison import aligned, changed_keys, comparison_rows, flattened, run_figures
from pocketfleet.errors import InputError

# Rounds with more phones than they want, rounds with too few at the deadline: reports come late, or not in time.
ROUGH = (
    "fleet.devices=60",
    "partition.examples_per_device=20",
    "training.batch_size=8",
    "training.epochs=400",
    "rounds.count=8",
    "rounds.cohort=6",
    "rounds.deadline_s=0.8",
    "rounds.over_selection=1.6",
)


@pytest.fixture(scope="module")
def runs(boston_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """A trained one and two by the clock alone, of which the last over-selects nobody."""
    folder = tmp_path_factory.mktemp("runs")
    experiment = Experiment.load("boston-fleet", [*ROUGH, f"task.bundle='{boston_bundle.path}'"])
    clock = experiment.with_settings("engine.timing_only=true")
    return [
        simulate(experiment.with_settings("training.epochs=20", "fleet.availability=always"), folder / "trained"),
        simulate(clock, folder / "clock"),
        simulate(clock.with_settings("rounds.over_selection=1.0"), folder / "sparing"),
    ]


def test_the_figures_are_those_of_the_tables(runs: list[Run]) -> None:
    for run in runs:
        found = run_figures(run)
        rounds = pd.read_parquet(run.path / "rounds.parquet")
        events = pd.read_parquet(run.path / "events.parquet")
        made = rounds[rounds["outcome"] != "abandoned"]
        assert (found["rounds"], found["rounds_abandoned"]) == (len(made), len(rounds) - len(made))
        seconds = np.sort((rounds["closed_s"] - rounds["opened_s"]).to_numpy())
        assert found["round_mean_s"] == pytest.approx(seconds.sum() / len(seconds))
        # The 90th percentile stands at nine tenths of the way from the first to the last, between two of them.
        place = 0.9 * (len(seconds) - 1)
        below, part = int(place), place - int(place)
        assert seconds[len(seconds) // 2] < seconds[below] or run is not runs[0]
        above = min(below + 1, len(seconds) - 1)
        assert found["round_p90_s"] == pytest.approx(seconds[below] * (1 - part) + seconds[above] * part)
        assert found["virtual_hours"] * 3600 == pytest.approx(rounds["closed_s"].iloc[-1])
        asked = (events["kind"] == "assign").sum()
        accepted = ((events["kind"] == "report") & (events["reason"] == "accepted")).sum()
        assert (found["device_rounds"], found["accepted"]) == (asked, accepted)
        down = events.loc[events["kind"] == "download", "bytes"].sum() / 1e6
        up = events.loc[events["kind"] == "upload", "bytes"].sum() / 1e6
        assert (found["downlink_mb"], found["uplink_mb"]) == (pytest.approx(down), pytest.approx(up))
        assert found["mb_per_accepted"] == pytest.approx((down + up) / accepted)
        assert found["energy_joules"] == pytest.approx(events["joules"].sum())
        assert found["joules_per_accepted"] == pytest.approx(events["joules"].sum() / accepted)


def test_the_shares_are_those_of_the_events_and_add_up(runs: list[Run]) -> None:
    reasons = set()
    for run in runs:
        found, events = run_figures(run), run.events
        ended = events[events["kind"].isin(["drop", "report"]) & (events["reason"] != "accepted")]
        for reason, count in ended["reason"].value_counts().items():
            if count:
                assert found[f"lost_ratio_{reason}"] == pytest.approx(count / found["device_rounds"])
                reasons.add(reason)
        shares = [value for name, value in found.items() if name.startswith("lost_ratio_")]
        assert found["accepted_ratio"] + found["in_flight_ratio"] + sum(shares) == pytest.approx(1.0)
    assert reasons == {"late", "deadline"}


def test_what_was_learnt_is_told_of_what_was_trained(runs: list[Run]) -> None:
    trained, clock = run_figures(runs[0]), run_figures(runs[1])
    evaluated = pd.read_parquet(runs[0].path / "rounds.parquet")["test_mse"].dropna()
    assert trained["metric"] == clock["metric"] == "test_mse"
    assert trained["metric_last"] == pytest.approx(evaluated.iloc[-1])
    assert trained["metric_mean_of_last_five"] == pytest.approx(evaluated.iloc[-5:].sum() / 5)
    assert clock["metric_last"] is clock["metric_mean_of_last_five"] is None


def test_rows_lead_with_the_keys_that_differ_and_nothing_else(runs: list[Run]) -> None:
    rows = comparison_rows(runs)
    keys = ["fleet.availability", "training.epochs", "rounds.over_selection", "engine.timing_only"]
    assert list(rows[0])[:6] == ["run", *keys, "rounds"]
    assert [row["training.epochs"] for row in rows] == [20, 400, 400]
    assert [row["rounds.over_selection"] for row in rows] == [1.6, 1.6, 1.0]
    assert len({tuple(row) for row in rows}) == 1
    # The same experiment with itself differs in nothing.
    assert list(comparison_rows([runs[1], runs[1]])[0])[:2] == ["run", "rounds"]


def test_differences_are_in_percent_of_the_first(runs: list[Run]) -> None:
    rows = comparison_rows(runs[1:])
    assert {value for name, value in rows[0].items() if name.endswith("_difference_percent")} <= {0.0, None}
    first, second = (run_figures(run) for run in runs[1:])
    expected = 100 * (second["device_rounds"] / first["device_rounds"] - 1)
    assert rows[1]["device_rounds_difference_percent"] == pytest.approx(expected)
    assert expected < 0
    # Of nothing, and of what is not known, no share can be told.
    assert comparison_rows(runs)[2]["metric_last_difference_percent"] is None


def test_a_reason_that_cost_a_run_nothing_has_share_zero() -> None:
    rows = aligned([{"in_flight_ratio": 0.5, "lost_ratio_late": 0.5, "a": 1}, {}, {"in_flight_ratio": 1.0, "a": 2}])
    assert rows == [
        {"in_flight_ratio": 0.5, "lost_ratio_late": 0.5, "a": 1},
        {"in_flight_ratio": None, "lost_ratio_late": None, "a": None},
        {"in_flight_ratio": 1.0, "lost_ratio_late": 0.0, "a": 2},
    ]


def test_keys_of_a_table_in_a_table_are_dotted() -> None:
    flat = flattened({"seed": 1, "task": {"name": "x", "options": {"n": 2}, "empty": {}}})
    assert flat == {"seed": 1, "task.name": "x", "task.options.n": 2, "task.empty": {}}
    assert changed_keys([{"a": 1, "b": [1], "c": True}, {"a": 1.0, "b": [2], "c": True, "d": 0}]) == ["a", "b", "d"]


def test_a_damaged_run_is_told(runs: list[Run], tmp_path: Path) -> None:
    for name, text in {"rounds.parquet": "no table", "summary.json": json.dumps({"rounds": 1})}.items():
        folder = tmp_path / name
        folder.mkdir()
        for file in ("experiment.toml", "summary.json", "rounds.parquet"):
            (folder / file).write_bytes((runs[0].path / file).read_bytes())
        (folder / name).write_text(text)
        with pytest.raises(InputError, match=f"{name} is damaged .*--force"):
            run_figures(Run(folder))


def test_tables_lead_with_few_keys_and_number_many(runs: list[Run]) -> None:
    rows = comparison_rows(runs)
    few = comparison_tables(rows, keys=["training.epochs", "rounds.over_selection"])
    assert [table.title for table in few][:2] == ["Runs", "Rounds"]
    assert list(few[1].rows[0])[:2] == ["epochs", "over_selection"]
    many = comparison_tables(rows, keys=["training.epochs", "rounds.over_selection", "engine.timing_only"])
    assert [row["#"] for row in many[0].rows] == [row["#"] for row in many[1].rows] == ["1", "2", "3"]
    assert few[-1].rows[0]["metric"] == "test_mse"
    assert few[-1].rows[1]["last"] == "-"
    assert few[2].rows[2]["assigned"] == (
        f"{rows[2]['device_rounds']} ({rows[2]['device_rounds_difference_percent']:+.1f} %)"
    )
    # By the clock alone there is nothing learnt to tell of.
    assert "What was learnt" not in [table.title for table in comparison_tables(rows[1:], keys=[])]


def test_a_csv_file_holds_the_rows(runs: list[Run], tmp_path: Path) -> None:
    rows = comparison_rows(runs)
    (tmp_path / "rows.csv").write_text(csv_text(rows))
    table = pd.read_csv(tmp_path / "rows.csv")
    assert list(table.columns) == list(rows[0])
    assert table["round_p90_s"].tolist() == [row["round_p90_s"] for row in rows]
    assert table["metric_last"].isna().tolist() == [False, True, True]
