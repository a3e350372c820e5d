"""A plan by the command line, against the same figures worked out anew from the run's tables."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pocketfleet import Bundle
from pocketfleet.deployment import plan_deployment

DAYS = 1.5


def arguments(bundle: Bundle, *more: str) -> list[str]:
    """Boston's fleet, every half hour a round, with half of the phones on metered links that may be used."""
    metered = "fleet.overrides=[{devices=[0,1,2,3,4,5,6,7,8,9], metered=true}]"
    changes = [f"task.bundle={bundle.path}", "fleet.devices=60", "rounds.cohort=8", "rounds.interval_s=1800.0"]
    changes += [metered, "eligibility.unmetered=false", "training.steps=200000", "rounds.deadline_s=60.0"]
    settings = [word for change in changes for word in ("--set", change)]
    return ["plan", "boston-fleet", *settings, *more]


@pytest.fixture
def planned(pocketfleet, boston_bundle: Bundle) -> tuple[dict, Path]:
    called = pocketfleet(*arguments(boston_bundle, "--days", str(DAYS), "--out", "p", "--json", "--csv", "p.csv"))
    assert called.code == 0, called.err
    return json.loads(called.out), Path("p/seed=1")


def test_a_plan_is_what_its_run_says(planned) -> None:
    plan, run = planned
    figures = {row["name"]: row for row in plan["figures"]}
    value = {name: row["value"] for name, row in figures.items()}
    assert json.loads(Path("p/plan.json").read_text()) == plan
    assert pd.read_csv("p.csv")["name"].tolist() == list(figures)
    events, rounds, devices = (pd.read_parquet(run / f"{name}.parquet") for name in ("events", "rounds", "devices"))
    summary = json.loads((run / "summary.json").read_text())
    days = summary["virtual_seconds"] / 86_400
    assert days == pytest.approx(DAYS)
    ended = events[events["kind"].isin(["report", "drop"])]

    # A user's joules, bytes and minutes, from the events rather than the table of devices.
    own = events[events["device"] >= 0].groupby("device", observed=True)[["joules", "bytes", "metered_bytes"]].sum()
    own = own.reindex(range(60), fill_value=0.0)
    percent = 100 * own["joules"] / devices["battery_joules"] * 30 / days
    assert value["battery_percent_per_month_all_p95"] == pytest.approx(percent.quantile(0.95))
    metered_mb = own["metered_bytes"] / 1e6 * 30 / days
    assert value["metered_mb_per_month_all_p99"] == pytest.approx(metered_mb.quantile(0.99), rel=1e-3)
    assert value["metered_mb_per_month_all_p99"] > 0
    assert 0 < own["metered_bytes"].sum() < own["bytes"].sum()
    trained = events[events["kind"] == "train"].groupby("device", observed=True)["seconds"].sum()
    minutes = trained.reindex(range(60), fill_value=0.0) / 60 * 30 / days
    assert value["training_minutes_per_month_all_p50"] == pytest.approx(minutes.quantile(0.5))
    training_days = ended.groupby("device", observed=True)["time_s"].apply(lambda at: at.floordiv(86_400).nunique())
    daily = (percent * days / 30)[training_days.index] / training_days
    assert value["battery_percent_per_training_day_p50"] == pytest.approx(daily.quantile(0.5))
    assigned = events[events["kind"] == "assign"]
    assert value["never_assigned_ratio"] == pytest.approx(1 - assigned["device"].nunique() / 60)

    # The server.
    opening = rounds["opened_s"].astype(int).repeat(rounds["turned_away"])
    check_ins = pd.concat([assigned["time_s"].astype(int), opening]).value_counts()
    assert rounds["turned_away"].sum() > 0
    assert value["check_ins_per_s_peak"] == check_ins.max()
    assert value["check_ins_per_s_mean"] == pytest.approx(check_ins.sum() / (days * 86_400))
    down = events.loc[events["kind"] == "download", "bytes"].sum()
    assert value["download_gbit_per_s_mean"] == pytest.approx(8 * down / 1e9 / (days * 86_400))
    assert value["download_gbit_per_s_peak"] > value["download_gbit_per_s_mean"]

    # The hours: those of opening, and of the ends of attempts.
    hour = rounds["opened_s"].floordiv(3600).mod(24)
    seconds = rounds["closed_s"] - rounds["opened_s"]
    lost = ended[~((ended["kind"] == "report") & (ended["reason"] == "accepted"))]
    for row in plan["hours"]:
        assert row["rounds"] == (hour == row["hour"]).sum()
        # An hour in which nobody was there to begin a round has no length of one.
        assert (row["round_p95_s"] is None) == (row["rounds"] == 0)
        assert row["rounds"] == 0 or row["round_p95_s"] == pytest.approx(seconds[hour == row["hour"]].quantile(0.95))
        at = ended["time_s"].floordiv(3600).mod(24) == row["hour"]
        assert row["attempts_ended"] == at.sum()
        of_hour = sum(share for name, share in row.items() if name.startswith("lost_ratio_") and share)
        assert of_hour * at.sum() == pytest.approx((at & ended.index.isin(lost.index)).sum())
    assert sum(row["rounds"] for row in plan["hours"]) == len(rounds) > 0
    assert len(lost) > 0

    # 100 models were wanted, 72 half hours are not enough.
    made = (rounds["outcome"] != "abandoned").sum()
    assert value["models_made"] == made < 100
    assert value["days_to_rounds"] is None
    assert value["days_to_rounds_at_least"] == pytest.approx(days)
    assert all(row["rests_on"] in plan["assumptions"] for row in plan["figures"])


def test_seeds_give_a_range_and_a_plan_goes_on_where_it_was(pocketfleet, boston_bundle: Bundle) -> None:
    asked = arguments(boston_bundle, "--days", "0.25", "--seeds", "2", "--out", "p", "--set", "rounds.count=3")
    called = pocketfleet(*asked)
    assert called.code == 0, called.err
    assert "3 models: after 0.0" in called.out
    assert " to " in called.out
    before = Path("p/plan.json").read_text()
    figure = next(one for one in json.loads(before)["figures"] if one["name"] == "never_assigned_ratio")
    shares = []
    for seed in (1, 2):
        devices = pd.read_parquet(f"p/seed={seed}/devices.parquet")
        shares.append(float((devices["assigned"] == 0).mean()))
    assert (figure["low"], figure["high"]) == (min(shares), max(shares))
    assert figure["value"] == pytest.approx(np.median(shares))
    assert pocketfleet(*asked).code == 2
    # Half of it lost: only that run is made again, and the plan is the same.
    kept = Path("p/seed=1/summary.json").stat().st_mtime_ns
    shutil.rmtree("p/seed=2")
    Path("p/plan.json").unlink()
    assert pocketfleet(*asked, "--resume").code == 0
    assert Path("p/plan.json").read_text() == before
    assert Path("p/seed=1/summary.json").stat().st_mtime_ns == kept


def test_a_target_trains_and_tells_when(pocketfleet, boston_bundle: Bundle) -> None:
    asked = arguments(boston_bundle, "--days", "0.5", "--json", "--set", "training.steps=20", "--set", "rounds.count=6")
    called = pocketfleet(*asked, "--out", "p", "--target", "mse=400")
    assert called.code == 0, called.err
    found = {row["name"]: row["value"] for row in json.loads(called.out)["figures"]}
    rounds = pd.read_parquet("p/seed=1/rounds.parquet")
    met = rounds[rounds["test_mse"] <= 400]
    assert len(met) > 0
    assert found["days_to_target"] == pytest.approx(met["closed_s"].iloc[0] / 86_400)
    assert found["models_to_target"] == met["model_version"].iloc[0]
    missed = pocketfleet(*asked[: asked.index("--json")], *asked[asked.index("--json") + 1 :], "--target", "mse<=0.001")
    assert missed.code == 0, missed.err
    assert "test_mse<=0.001: not reached in every run, so it takes more than" in missed.out.replace("\n", " ")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--days", "0"], "--days must be over 0 and at most 92, got 0"),
        (["--days", "nan"], "--days must be over 0"),
        (["--target", "f1=0.9"], "'test_f1', which the task does not measure; it has test_loss, test_mse"),
        (["--target", "mse<=100000"], "is met before any training"),
        (["--target", "mse"], "--target takes metric=value"),
        (["--set", "rounds.horizon_s=10.0"], "plan settles rounds.horizon_s itself"),
        (["--set", "seed=3"], "plan settles seed itself"),
        (["--csv", "no/such/file.csv"], "no/such/file.csv cannot be written"),
        (["--set", "fleet.threads=99"], "fleet.threads should be less than or equal to 16"),
    ],
)
def test_what_cannot_be_planned(pocketfleet, boston_bundle: Bundle, more: list[str], said: str) -> None:
    called = pocketfleet(*arguments(boston_bundle, *more))
    assert called.code == 2
    assert said in called.err
    assert len(called.err.strip().splitlines()) == 1
    assert not Path("runs").exists()


def test_a_plan_counts_what_sums_and_codecs_move(pocketfleet, boston_bundle: Bundle) -> None:
    asked = arguments(boston_bundle, "--days", "0.25", "--json", "--set", "training.steps=20")
    always = ["--set", "fleet.availability=always", "--set", "rounds.deadline_s=600.0"]
    secure = ["--set", "secure_aggregation.enabled=true"]
    codec = ["--set", 'codec={name="top_k+quantised", ratio=0.01, bits=8}']
    stored = {}
    for name, more in (("secure", secure), ("codec", codec), ("plain", [])):
        called = pocketfleet(*asked, *always, *more, "--out", name)
        assert called.code == 0, called.err
        found = {row["name"]: row["value"] for row in json.loads(called.out)["figures"]}
        summary = json.loads(Path(name, "seed=1", "summary.json").read_text())
        seconds = summary["virtual_seconds"]
        for way, moved in (("download", "downlink_bytes"), ("upload", "uplink_bytes")):
            assert found[f"{way}_gbit_per_s_mean"] == pytest.approx(8 * summary[moved] / 1e9 / seconds)
        reports = pd.read_parquet(f"{name}/seed=1/rounds.parquet")["accepted"].max()
        stored[name] = found["stored_updates_gb"] * 1e9 / reports
    # A report's body: two public keys, a hundredth of the values in 8 bits and their places, all of them in 32.
    assert stored["secure"] == pytest.approx(2 * 32)
    assert stored["codec"] < stored["plain"] / 20


def test_a_plan_makes_no_more_models_than_phones_may_be_in(pocketfleet, boston_bundle: Bundle) -> None:
    private = ["mechanism=central", "max_norm=0.5", "delta=1e-5", "max_participations=2", "target_epsilon=8.0"]
    more = [word for one in private for word in ("--set", f"privacy.{one}")]
    asked = arguments(boston_bundle, "--days", "2", "--json", "--set", "training.steps=20", "--set", "rounds.count=5")
    called = pocketfleet(*asked, "--set", "fleet.availability=always", *more, "--out", "p")
    assert called.code == 0, called.err
    summary = json.loads(Path("p/seed=1/summary.json").read_text())
    # 60 phones in two models each are enough for 15 of 8.
    assert 5 < summary["rounds"] <= 15
    again = pocketfleet(*asked, "--set", "fleet.availability=always", *more, "--out", "p", "--resume")
    assert (again.code, again.out) == (0, called.out), again.err


def test_a_plan_by_the_clock_alone_has_no_gate(boston_bundle: Bundle, tmp_path: Path) -> None:
    settings = [f"task.bundle='{boston_bundle.path}'", "release.gate=evaluation", "release.evaluation_reports=5"]
    planned = plan_deployment("boston-fleet", settings, days=1.0, seeds=1, target=None, out=tmp_path / "plan")
    assert [run.experiment.release.gate for run in planned.runs] == ["none"]
