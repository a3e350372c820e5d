"""What a phone lacks leaves out or drops exactly the phones that lack it, and the event log says why."""

from pathlib import Path

import pytest

from pocketfleet import Bundle, Experiment, Run, simulate

# Ten phones, all asked for, every report wanted; two of them lack something.
BASE = (
    "fleet.devices=10",
    "fleet.availability=always",
    "partition.examples_per_device=40",
    "rounds.count=2",
    "rounds.cohort=10",
    "rounds.over_selection=1.0",
    "rounds.minimum_ratio=0.5",
    "rounds.deadline_s=60",
    "rounds.interval_s=0",
)
LACKING = {3, 7}
ALL = set(range(10))


def run(bundle: Bundle, out: Path, *settings: str, override: str = "") -> Run:
    text = Experiment.load("boston-fleet", [*BASE, f"task.bundle={bundle.path}"]).to_toml()
    full = '[[fleet.overrides]]\ndevices = "all"\nbattery_ratio = 1.0\n'
    text = text.replace("overrides = []\n", "") + full
    if override:
        text += f"[[fleet.overrides]]\ndevices = {sorted(LACKING)}\n{override}\n"
    return simulate(Experiment.from_toml(text, settings), out)


def devices_with(run: Run, kind: str, reason: str) -> set[int]:
    events = run.events
    return set(events[(events["kind"] == kind) & (events["reason"] == reason)]["device"])


def ineligible(run: Run) -> dict[int, set[str]]:
    """Why each device was found ineligible, of those that were."""
    columns = [name for name in run.devices if name.startswith("ineligible_")]
    found = {
        int(device): {name.removeprefix("ineligible_") for name in columns if run.devices[name][device] > 0}
        for device in run.devices["device"]
    }
    return {device: reasons for device, reasons in found.items() if reasons}


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("free_memory_bytes = 10_000_000", "low_memory"),
        ("has_charger = false", "not_charging"),
        ("metered = true", "metered"),
        ("battery_ratio = 0.1", "low_battery"),
    ],
)
def test_phones_that_may_not_train_are_never_asked(
    override: str, reason: str, boston_bundle: Bundle, tmp_path: Path
) -> None:
    # A deadline shorter than a battery takes to charge from 0.1 to 0.3.
    found = run(boston_bundle, tmp_path / "run", override=override)
    assert ineligible(found) == {device: {reason} for device in LACKING}
    assert set(found.events.query("kind == 'assign'")["device"]) == ALL - LACKING
    assert found.summary["dropouts"] == {}
    assert found.rounds["outcome"].tolist() == ["deadline", "deadline"]


@pytest.mark.parametrize("direction", ["down", "up"])
def test_a_weak_link_misses_the_deadline_in_its_own_stage(
    direction: str, boston_bundle: Bundle, tmp_path: Path
) -> None:
    # 7 kB of update, or 50 kB and more of bundle, at 100 bit/s: over 500 s, far beyond the deadline of 60 s.
    found = run(boston_bundle, tmp_path / "run", override=f"{direction}_bits_per_s = 100.0")
    stage = {"down": "download", "up": "upload"}[direction]
    assert devices_with(found, "drop", "deadline") == LACKING
    assert devices_with(found, stage, "deadline") == LACKING
    assert devices_with(found, "report", "accepted") == ALL - LACKING
    assert found.summary["dropouts"] == {"deadline": 4}


def test_a_link_that_is_lost_drops_its_phones(boston_bundle: Bundle, tmp_path: Path) -> None:
    # 36 million losses an hour are 10,000 a second, each the end of its transfer; the bundle's bits take milliseconds.
    lossy = "link_losses_per_hour = 36_000_000.0"
    found = run(boston_bundle, tmp_path / "run", "fleet.outage_limit_s=0", override=lossy)
    assert devices_with(found, "drop", "link_lost") == LACKING
    assert devices_with(found, "report", "accepted") == ALL - LACKING


def test_a_slow_phone_misses_a_short_deadline(boston_bundle: Bundle, tmp_path: Path) -> None:
    # A million times slower: a step of milliseconds takes longer than the deadline.
    found = run(boston_bundle, tmp_path / "run", override="peak_flops_ratio = 1e-6")
    assert devices_with(found, "drop", "deadline") == LACKING
    assert devices_with(found, "train", "deadline") == LACKING
    assert devices_with(found, "report", "accepted") == ALL - LACKING


def test_a_deadline_that_nobody_makes_abandons_every_round(boston_bundle: Bundle, tmp_path: Path) -> None:
    found = run(boston_bundle, tmp_path / "run", "rounds.deadline_s=0.001", "rounds.horizon_s=3600")
    assert found.summary["ended"] == "horizon"
    assert found.summary["rounds"] == 0
    assert found.summary["rounds_abandoned"] >= 1
    assert devices_with(found, "drop", "deadline") == ALL
    assert found.summary["reports_accepted"] == 0


def test_a_fleet_that_may_never_train_ends_at_its_horizon(boston_bundle: Bundle, tmp_path: Path) -> None:
    found = run(boston_bundle, tmp_path / "run", "fleet.network=lte-2021", "rounds.horizon_s=86400")
    assert found.summary["ended"] == "horizon"
    assert found.summary["virtual_seconds"] == 86400
    assert found.summary["device_rounds"] == 0
    assert ineligible(found) == {device: {"metered"} for device in ALL}
    allowed = run(boston_bundle, tmp_path / "allowed", "fleet.network=lte-2021", "eligibility.unmetered=false")
    assert allowed.summary["rounds"] == 2


def test_partial_work_is_reported_or_discarded(boston_bundle: Bundle, tmp_path: Path) -> None:
    # Phones with a day of their own and 600 steps of some ten seconds each: some are picked up or unplugged.
    day = (
        "fleet.availability=flash-2020",
        "fleet.devices=200",
        "training.steps=600",
        "rounds.deadline_s=43200",
        "rounds.count=1",
        "rounds.cohort=12",
        "rounds.minimum_ratio=0.1",
        "rounds.horizon_s=50000",
    )
    slow = '[[fleet.overrides]]\ndevices = "all"\npeak_flops_ratio = 1e-6\n'
    text = Experiment.load("boston-fleet", [*BASE, f"task.bundle={boston_bundle.path}"]).to_toml()
    runs = {
        choice: simulate(
            Experiment.from_toml(text.replace("overrides = []\n", "") + slow, [*day, f"rounds.partial_work={choice}"]),
            tmp_path / choice,
        )
        for choice in ("report", "discard")
    }
    interrupted = {"in_use", "not_charging"}
    for choice, found in runs.items():
        events = found.events.assign(then=found.events.groupby("device")["kind"].shift(-1))
        cut = events[(events["kind"] == "train") & events["reason"].isin(interrupted)]
        with_steps = cut[cut["steps"] > 0]
        assert len(with_steps) > 0, choice
        assert set(with_steps["then"]) == {"upload" if choice == "report" else "drop"}
        assert set(cut[cut["steps"] == 0]["then"]) <= {"drop"}


def test_every_assignment_has_one_end(boston_bundle: Bundle, tmp_path: Path) -> None:
    lossy = "link_losses_per_hour = 3_000_000.0"
    found = run(boston_bundle, tmp_path / "run", "fleet.outage_limit_s=0", override=lossy)
    events = found.events
    ends = events[events["kind"].isin(["report", "drop"])]
    assert len(ends) + found.summary["in_flight"] == found.summary["device_rounds"]
    assert sum(found.summary["dropouts"].values()) + found.summary["reports_accepted"] == len(ends)
    # A run's and a round's totals are the sums over events.
    assert found.summary["energy_joules"] == pytest.approx(events["joules"].sum())
    assert found.rounds["energy_joules"].sum() == pytest.approx(events["joules"].sum())
    assert found.rounds["downlink_bytes"].sum() == events.query("kind == 'download'")["bytes"].sum()
    assert found.devices["energy_joules"].sum() == pytest.approx(events["joules"].sum())


def test_phones_off_wifi_train_over_their_cellular_links_and_their_bytes_are_told_apart(
    boston_bundle: Bundle, tmp_path: Path
) -> None:
    # A fleet at night, some of it never on Wi-Fi; nothing but the network is asked for.
    settings = (
        *("fleet.network=places-2021", "fleet.availability=flash-2020", "fleet.devices=60", "rounds.cohort=30"),
        *("eligibility.idle=false", "eligibility.charging=false", "eligibility.min_battery_ratio=0.0"),
    )
    with_wifi = run(boston_bundle, tmp_path / "wifi", *settings)
    anywhere = run(boston_bundle, tmp_path / "anywhere", *settings, "eligibility.unmetered=false")
    assert with_wifi.summary["metered_bytes"] == 0
    assert "metered" in with_wifi.summary["ineligible"]
    assert "metered" not in anywhere.summary["ineligible"]
    metered = anywhere.summary["metered_bytes"]
    assert 0 < metered < anywhere.summary["downlink_bytes"] + anywhere.summary["uplink_bytes"]
    for table in (anywhere.rounds, anywhere.events, anywhere.devices):
        assert table["metered_bytes"].sum() == metered


def test_a_limit_on_outages_decides_between_a_longer_transfer_and_none(boston_bundle: Bundle, tmp_path: Path) -> None:
    # Hundreds of losses within the milliseconds of a bundle's bits, each over after a millisecond.
    lossy = "link_losses_per_hour = 36_000_000.0"
    found = run(boston_bundle, tmp_path / "run", "fleet.outage_mean_s=0.001", override=lossy)
    assert found.summary["dropouts"] == {}
    seconds = found.events.query("kind == 'download'").groupby("device")["seconds"].sum()
    assert seconds[sorted(LACKING)].min() > seconds[sorted(ALL - LACKING)].max()
