import re
import shutil
from importlib import resources
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from page_reader import PageReader, small_run

from pocketfleet import Bundle, Run
from pocketfleet.device_sim.page import page
from pocketfleet.device_sim.page_table import shown
from pocketfleet.device_sim.phone import load_phones
from pocketfleet.errors import InputError


@pytest.fixture(scope="module")
def run(boston_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return small_run(boston_bundle, tmp_path_factory.mktemp("page") / "run")


@pytest.fixture(scope="module")
def read(run: Run) -> PageReader:
    return PageReader(page(run))


def parquet(run: Run, name: str) -> pd.DataFrame:
    return pd.read_parquet(run.path / f"{name}.parquet")


def close(got: object, wanted: object) -> None:
    np.testing.assert_allclose(np.asarray(got, dtype=float), np.asarray(wanted, dtype=float), rtol=1e-9)


def test_every_mark_is_the_runs_own_number(run: Run, read: PageReader) -> None:
    rounds, events, devices = (parquet(run, name) for name in ("rounds", "events", "devices"))
    lost = events[events["kind"].isin(["drop", "report"]) & (events["reason"] != "accepted")]
    peaks = [phone.peak_flops_one_thread for phone in load_phones()]
    told = rounds[rounds["accepted"] > 0].assign(lasted=lambda table: table["closed_s"] - table["opened_s"])
    middle = told.sort_values("lasted", kind="stable")["round"].iloc[(len(told) - 1) // 2]
    stages = events[(events["round"] == middle) & events["kind"].isin(["download", "train", "upload"])]
    measured = devices.dropna(subset=["metric_global", "metric_personalised"])
    wanted = {
        "devices": len(devices),
        "rounds": (rounds["outcome"] != "abandoned").sum(),
        "rounds_abandoned": (rounds["outcome"] == "abandoned").sum(),
        "virtual_seconds": run.summary["virtual_seconds"],
        "device_rounds": (events["kind"] == "assign").sum(),
        "reports_accepted": ((events["kind"] == "report") & (events["reason"] == "accepted")).sum(),
        "downlink_bytes": events["bytes"][events["kind"] == "download"].sum(),
        "uplink_bytes": events["bytes"][events["kind"] == "upload"].sum(),
        "energy_joules": events["joules"].sum(),
        "timeline_round": middle,
        "timeline_devices": stages["device"].nunique(),
        "slow_middle_flops": np.quantile(peaks, 1 / 3),
        "middle_fast_flops": np.quantile(peaks, 2 / 3),
        "personal_global": measured["metric_global"].mean(),
        "personal_own": measured["metric_personalised"].mean(),
        "personal_devices": len(measured),
        **{f"last:{name}": rounds[name].dropna().iloc[-1] for name in rounds if name.startswith("test_")},
        **{f"dropouts:{word}": count for word, count in lost["reason"].astype(str).value_counts().items()},
    }
    marks = {name: value for name, value in read.figures.items() if value}
    assert set(marks) == set(wanted)
    for name, value in wanted.items():
        assert float(marks[name]) == pytest.approx(float(value), rel=1e-9), name
    assert read.shown["devices"] == shown(len(devices))
    assert read.shown["downlink_bytes"] == f"{shown(wanted['downlink_bytes'] / 1e6)} MB"


def test_learning_is_what_rounds_add_up_to(run: Run, read: PageReader) -> None:
    rounds, table = parquet(run, "rounds"), read.csv["rounds"]
    close(table["closed_hours"], rounds["closed_s"] / 3600)
    close(table["total_bytes"], np.cumsum(rounds["downlink_bytes"] + rounds["uplink_bytes"]))
    close(table["total_joules"], np.cumsum(rounds["energy_joules"]))
    same = ["round", "model_version", "assigned", "accepted", "train_loss"]
    same += [name for name in rounds if name.startswith("test_")]
    close(table[same], rounds[same])
    assert table["outcome"].tolist() == rounds["outcome"].tolist()
    assert set(table) == {*same, "outcome", "closed_hours", "total_bytes", "total_joules"}


def test_a_timeline_holds_every_stage_of_its_round(run: Run) -> None:
    events, table = parquet(run, "events"), PageReader(page(run, round_index=1)).csv["timeline"]
    opened_s = parquet(run, "rounds")["opened_s"][1]
    stages = events[(events["round"] == 1) & events["kind"].isin(["download", "train", "upload"])]
    wanted = sorted(zip(stages["device"], stages["kind"], stages["time_s"] - opened_s, strict=True))
    got = sorted(zip(table["device"], table["stage"], table["end_s"], strict=True))
    assert [row[:2] for row in got] == [row[:2] for row in wanted]
    by_stage = stages.sort_values(["device", "time_s"], kind="stable")
    own = table.sort_values(["device", "end_s"], kind="stable")
    close(own["start_s"], by_stage["time_s"] - by_stage["seconds"] - opened_s)
    assert own["reason"].astype(object).fillna("").tolist() == by_stage["reason"].astype(str).tolist()
    assert own["name"].tolist() == parquet(run, "devices")["name"].iloc[by_stage["device"]].tolist()
    close([row[2] for row in got], [row[2] for row in wanted])
    close((table["end_s"] - table["start_s"]).sum(), stages["seconds"].sum())
    with pytest.raises(InputError, match=r"--round must be a closed round of the run \(0\.\.4\), got 5"):
        page(run, round_index=5)


def test_dropouts_stand_at_their_hour(run: Run, read: PageReader) -> None:
    events, table = parquet(run, "events"), read.csv["dropouts"]
    events["hour"] = events["time_s"] % 86_400 // 3600
    lost = events[events["kind"].isin(["drop", "report"]) & (events["reason"] != "accepted")]
    assert len(table) == 24
    assert len(lost) > 0
    for column in table.columns[1:]:
        chosen = events[events["kind"] == "assign"] if column == "assigned" else lost[lost["reason"] == column]
        close(table[column], [(chosen["hour"] == hour).sum() for hour in range(24)])
    assert table.drop(columns=["hour", "assigned"]).to_numpy().sum() == len(lost)


def test_tiers_and_distributions_are_of_the_devices(run: Run, read: PageReader) -> None:
    devices, spread, shares = parquet(run, "devices"), read.csv["spread"], read.csv["tiers"]
    peak = devices["phone"].map({phone.name: phone.peak_flops_one_thread for phone in load_phones()})
    low, high = np.quantile([phone.peak_flops_one_thread for phone in load_phones()], [1 / 3, 2 / 3])
    belongs = {"slow third": peak <= low, "middle third": (peak > low) & (peak <= high), "fast third": peak > high}
    belongs["all"] = peak > 0
    for row in spread.to_dict("records"):
        values = devices.loc[belongs[row["tier"]] & (devices["assigned"] > 0), row["figure"]]
        wanted = [len(values), values.mean(), *(values.quantile(q) for q in (0, 0.1, 0.25, 0.5, 0.75, 0.9, 1))]
        close([row[name] for name in spread.columns[2:]], wanted)
    for row in shares.to_dict("records"):
        own = devices[belongs[row["tier"]]]
        close(row["accepted_ratio"], own["accepted"].sum() / devices["accepted"].sum())
        close([row["devices"], row["took_part"]], [len(own), (own["accepted"] > 0).sum()])
        close([row["assigned"], row["accepted"]], [own["assigned"].sum(), own["accepted"].sum()])
        close(row["devices_ratio"], len(own) / len(devices))
        for name in ("metric_global", "metric_personalised"):
            close(row[name], own[name].mean())
    assert len(shares.columns) == 9
    assert shares["devices"].sum() == len(devices)


def test_deciles_are_tenths_in_order(run: Run, read: PageReader) -> None:
    devices = parquet(run, "devices")
    counts = np.sort(devices["accepted"].to_numpy())
    close(read.csv["participation"]["accepted"], [part.sum() for part in np.array_split(counts, 10)])
    tenths = np.array_split(counts, 10)
    close(read.csv["participation"]["devices"], [len(part) for part in tenths])
    close(read.csv["participation"]["accepted_ratio"], [part.sum() / counts.sum() for part in tenths])
    measured = devices.dropna(subset=["metric_global"]).sort_values(["metric_global", "device"])
    close(read.csv["fairness"]["devices"], [len(part) for part in np.array_split(measured, 10) if len(part)])
    close(read.csv["personal"][["device", "num_held_out"]], measured[["device", "num_held_out"]])
    assert read.csv["personal"]["phone"].tolist() == measured["phone"].tolist()
    for name in ("metric_global", "metric_personalised"):
        parts = [part.mean() for part in np.array_split(measured[name].to_numpy(), 10) if len(part)]
        close(read.csv["fairness"][name], parts)
        close(read.csv["personal"][name], measured[name])


def test_costs_are_totals_and_shares(run: Run, read: PageReader) -> None:
    events, table = parquet(run, "events"), read.csv["costs"].set_index("cost")
    rounds, devices = parquet(run, "rounds"), parquet(run, "devices")
    accepted = ((events["kind"] == "report") & (events["reason"] == "accepted")).sum()
    made = (rounds["outcome"] != "abandoned").sum()

    def total(kind: str, column: str) -> float:
        return events[column][events["kind"] == kind].sum()

    wanted = {
        "downlink_bytes": total("download", "bytes"),
        "uplink_bytes": total("upload", "bytes"),
        "metered_bytes": events["metered_bytes"].sum(),
        "energy_joules": events["joules"].sum(),
        "device_steps": rounds["steps"].sum(),
        "train_s": total("train", "seconds"),
    }
    assert set(table.index) == set(wanted)
    for name, value in wanted.items():
        shares = [value, value / made, value / accepted, value / len(devices)]
        close(table.loc[name, ["total", "per_round", "per_report", "per_device"]], shares)


def test_bytes_that_cost_money_are_told(boston_bundle: Bundle, tmp_path: Path, read: PageReader) -> None:
    anywhere = ("engine.timing_only=true", "fleet.network=lte-2021", "eligibility.unmetered=false")
    run = small_run(boston_bundle, tmp_path / "lte", *anywhere)
    text = page(run)
    table = PageReader(text).csv["costs"].set_index("cost")
    metered = parquet(run, "events")["metered_bytes"].sum()
    assert table.loc["metered_bytes", "total"] == metered > 0
    # Drawn where there is something to draw; over home Wi-Fi there is not.
    assert "spread-metered_bytes" in text
    assert (read.csv["spread"]["figure"] == "metered_bytes").any()
    assert not [found for _, found in read.tags if found.get("id") == "spread-metered_bytes-title"]


def test_the_table_to_read_is_the_table_to_download(read: PageReader) -> None:
    assert set(read.tables) == set(read.csv)
    assert len(read.tables) == 9
    for name, rows in read.tables.items():
        table = read.csv[name]
        assert len(rows) - 1 == min(len(table), 200), name
        for place, column in enumerate(table.columns):
            if pd.api.types.is_numeric_dtype(table[column]):
                cells = [row[place] for row in rows[1:] if row[place]]
                close([float(cell) for cell in cells], table[column][: len(cells)])


def test_every_image_has_words_and_ids_are_unique(read: PageReader) -> None:
    images = [found for tag, found in read.tags if tag == "svg" and found.get("role") == "img"]
    ids = [str(found["id"]) for _, found in read.tags if "id" in found]
    assert len(images) >= 13
    assert len(ids) == len(set(ids))
    for found in images:
        assert set(str(found["aria-labelledby"]).split()) <= set(ids)
    assert not [found for tag, found in read.tags if tag in {"script", "link", "img", "iframe"}]


def test_a_clock_only_run_says_that_it_has_no_metrics(boston_bundle: Bundle, tmp_path: Path) -> None:
    text = page(small_run(boston_bundle, tmp_path / "clock", "engine.timing_only=true"))
    assert "This run has no metrics: only the clock ran" in text
    assert "No phone has a model of its own" in text
    assert "learning-rounds" not in text


def test_a_runs_own_words_stay_words(run: Run, tmp_path: Path) -> None:
    hostile = tmp_path / "hostile"
    shutil.copytree(run.path, hostile)
    evil = "</pre><script>alert(1)</script>"
    with (hostile / "experiment.toml").open("a") as file:
        file.write(f"\n# {evil}\n")
    opened = Run(hostile)
    opened.summary["task"] = evil
    opened.devices["name"] = evil
    text = page(opened)
    assert "<script" not in text
    assert text.count("&lt;script&gt;") > 3
    PageReader(text)


def luminance(colour: str) -> float:
    parts = np.array([int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)])
    linear = np.where(parts <= 0.03928, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", [0, 1])
def test_words_and_lines_stand_out_in_both_schemes(scheme: int) -> None:
    style = resources.files("pocketfleet").joinpath("templates", "report.css").read_text()
    blocks = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", blocks[scheme]))
    for ground in ("paper", "card", "code"):
        # WCAG 2.2: 4.5 for text (1.4.3), 3 for what a graphic needs (1.4.11).
        assert min(contrast(colours[name], colours[ground]) for name in ("ink", "quiet", "link")) >= 4.5
        assert min(contrast(colours[name], colours[ground]) for name in ("line-0", "line-1")) >= 3
