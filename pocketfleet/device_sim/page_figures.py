"""The numbers of a run's page: tables worked out of its Parquet files, nothing drawn here.

Rules:

1. A table is exact; a plot may show fewer points of it, never other ones. What is left out of a plot is said beside it.
2. Words (reasons, stages, outcomes, metrics) are read from the data: a run may have any.
3. A total up to round ``r`` sums the rounds' own columns, so what belongs to a round that never closed is in the
   summary's totals alone.
4. An hour is one of the virtual day: the clock starts at midnight.
5. A phone's *tier* is the third of the catalogue's phone models that it belongs to by one-thread peak FLOPS, the
   packaged catalogue with the experiment's own phones; a phone that the catalogue lacks has none. Bounds come from the
   catalogue, so that a tier means the same phones in every run.
6. Deciles put devices in order of a figure, equal ones by device number, and cut the order into ten parts as equal as
   their number allows.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pocketfleet.device_sim.phone import load_catalogue
from pocketfleet.device_sim.run import Run
from pocketfleet.device_sim.run_directory import EXPERIMENT
from pocketfleet.errors import InputError

__all__ = [
    "STAGES",
    "cost_rows",
    "deciles",
    "dropouts_by_hour",
    "learning",
    "own_against_global",
    "participation_deciles",
    "phone_tiers",
    "spread",
    "tier_shares",
    "timeline",
    "timeline_round",
]

STAGES = ("download", "train", "upload")
NO_TIER = "not in the catalogue"
_TIERS = ("slow third", "middle third", "fast third")
_HOUR_S, _DAY_S = 3600.0, 86_400.0
# Quantiles of a distribution, and their columns.
_QUANTILES = {"least": 0.0, "p10": 0.1, "p25": 0.25, "median": 0.5, "p75": 0.75, "p90": 0.9, "most": 1.0}
# A device's figures whose distribution the page shows.
SPREAD_COLUMNS = ("train_s", "downlink_bytes", "uplink_bytes", "metered_bytes", "energy_joules")
# Above so many devices, those evenly spaced in the order of the global model's metric stand for all (rule 1).
MOST_DEVICES = 20_000


def learning(run: Run) -> pd.DataFrame:
    """What the model had cost at each closed round, and how good it was.

    Returns:
        A row a closed round: ``round``, ``model_version``, ``outcome``, ``assigned``, ``accepted``, ``closed_hours``;
        ``total_bytes`` (down and up) and ``total_joules`` up to it; ``train_loss`` and the ``test_`` columns, if any
        row has a value there; of a private run ``epsilon`` up to it, and ``clip_norm``.
    """
    rounds = run.rounds
    table = rounds[["round", "model_version", "outcome", "assigned", "accepted"]].copy()
    table["closed_hours"] = rounds["closed_s"] / _HOUR_S
    table["total_bytes"] = (rounds["downlink_bytes"] + rounds["uplink_bytes"]).cumsum()
    table["total_joules"] = rounds["energy_joules"].cumsum()
    for name in rounds.columns:
        shown = name in {"train_loss", "epsilon", "clip_norm"} or name.startswith("test_")
        if shown and rounds[name].notna().any():
            table[name] = rounds[name]
    return table


def timeline_round(run: Run, wanted: int | None) -> int | None:
    """The round whose attempts are drawn: ``wanted``, or the one of median duration with a report; None without rounds.

    Raises:
        InputError: the run has no such round.
    """
    rounds = run.rounds
    if wanted is not None:
        if not 0 <= wanted < len(rounds):
            closed = f"0..{len(rounds) - 1}" if len(rounds) else "none: no round closed"
            raise InputError(f"--round must be a closed round of the run ({closed}), got {wanted}")
        return wanted
    told = rounds[rounds["accepted"] > 0]
    if told.empty:
        return 0 if len(rounds) else None
    duration = (told["closed_s"] - told["opened_s"]).sort_values(kind="stable")
    return int(told.loc[duration.index[(len(duration) - 1) // 2], "round"])


def timeline(run: Run, round_index: int) -> pd.DataFrame:
    """The stages of a round's attempts, those of a device together, first assigned first.

    Returns:
        ``device``, ``name``, ``stage``, ``start_s``, ``end_s`` (since the round opened) and ``reason`` (what cut it
        short, if anything).
    """
    columns = ["time_s", "device", "kind", "seconds", "reason"]
    events = pd.read_parquet(run.path / "events.parquet", columns=columns, filters=[("round", "==", round_index)])
    opened_s = float(run.rounds["opened_s"].iloc[round_index])
    kind = events["kind"].astype(str)
    assigned = events[kind == "assign"].drop_duplicates("device")["device"]
    place = pd.Series(np.arange(len(assigned)), index=assigned)
    bars = events[kind.isin(STAGES)]
    table = pd.DataFrame(
        {
            "device": bars["device"],
            "name": run.devices["name"].to_numpy()[bars["device"].to_numpy()],
            "stage": kind[bars.index],
            "start_s": bars["time_s"] - bars["seconds"] - opened_s,
            "end_s": bars["time_s"] - opened_s,
            "reason": bars["reason"].astype(str),
        }
    )
    order = np.lexsort((table["end_s"], table["device"].map(place).fillna(len(place))))
    return table.iloc[order].reset_index(drop=True)


def dropouts_by_hour(run: Run) -> pd.DataFrame:
    """Assignments, and those that gave no accepted report by reason, by hour of the virtual day (0 to 23).

    Returns:
        24 rows: ``hour``, ``assigned``, and a column a reason, the most frequent first; none in a run that lost none.
    """
    events = pd.read_parquet(run.path / "events.parquet", columns=["time_s", "kind", "reason"])
    kind, reason = events["kind"].astype("category"), events["reason"].astype("category")
    hour = (events["time_s"].to_numpy() % _DAY_S // _HOUR_S).astype(np.int64)
    lost = ((kind == "drop") | (kind == "report")).to_numpy() & (reason != "accepted").to_numpy()
    table = {"hour": np.arange(24), "assigned": np.bincount(hour[(kind == "assign").to_numpy()], minlength=24)}
    for word, count in reason[lost].value_counts(sort=False).sort_values(ascending=False, kind="stable").items():
        if count:
            table[str(word)] = np.bincount(hour[lost & (reason == word).to_numpy()], minlength=24)
    return pd.DataFrame(table)


def phone_tiers(run: Run) -> tuple[pd.Series, Mapping[str, float]]:
    """Each device's tier (rule 5), and the bounds between the tiers.

    Returns:
        Words ``[devices]``; ``slow_middle_flops`` and ``middle_fast_flops``, one-thread peaks.

    Raises:
        InputError: the experiment's own catalogue is gone or altered beyond reading.
    """
    own = tomllib.loads((run.path / EXPERIMENT).read_text())["fleet"].get("catalogue", "")
    peaks = {phone.name: phone.peak_flops_one_thread for phone in load_catalogue(Path(own) if own else None)}
    low, high = np.quantile(list(peaks.values()), [1 / 3, 2 / 3])
    tier_of = {name: _TIERS[int(peak > low) + int(peak > high)] for name, peak in peaks.items()}
    bounds = {"slow_middle_flops": float(low), "middle_fast_flops": float(high)}
    return run.devices["phone"].map(tier_of).fillna(NO_TIER), bounds


def spread(devices: pd.DataFrame, tiers: pd.Series) -> pd.DataFrame:
    """How unlike devices are: quantiles of ``SPREAD_COLUMNS`` over the devices that were assigned anything.

    Returns:
        A row a figure and tier, ``all`` first: ``figure``, ``tier``, ``devices``, ``mean``, and the quantiles
        ``least``, ``p10``, ``p25``, ``median``, ``p75``, ``p90``, ``most`` (linear between values).
    """
    asked = devices["assigned"] > 0
    rows: list[dict[str, Any]] = []
    for figure in SPREAD_COLUMNS:
        for tier in ("all", *_present(tiers)):
            values = devices.loc[asked & ((tiers == tier) | (tier == "all")), figure].astype(float)
            if len(values):
                found = dict(zip(_QUANTILES, np.quantile(values, list(_QUANTILES.values())), strict=True))
                rows.append({"figure": figure, "tier": tier, "devices": len(values), "mean": values.mean(), **found})
    return pd.DataFrame(rows, columns=["figure", "tier", "devices", "mean", *_QUANTILES])


def tier_shares(devices: pd.DataFrame, tiers: pd.Series) -> pd.DataFrame:
    """Who takes part: a row a tier with its share of the fleet and of the work.

    Returns:
        ``tier``, ``devices``, ``took_part`` (devices accepted at least once), ``assigned``, ``accepted``, and
        ``devices_ratio`` and ``accepted_ratio``, shares of all; means of the metrics if any device has them.
    """
    metrics = [name for name in ("metric_global", "metric_personalised") if devices[name].notna().any()]
    rows = []
    for tier in _present(tiers):
        own = devices[tiers == tier]
        rows.append(
            {
                "tier": tier,
                "devices": len(own),
                "took_part": int((own["accepted"] > 0).sum()),
                "assigned": int(own["assigned"].sum()),
                "accepted": int(own["accepted"].sum()),
                "devices_ratio": len(own) / len(devices),
                "accepted_ratio": own["accepted"].sum() / max(1, devices["accepted"].sum()),
                **{name: own[name].mean() for name in metrics},
            }
        )
    return pd.DataFrame(rows)


def _present(tiers: pd.Series) -> list[str]:
    return [tier for tier in (*_TIERS, NO_TIER) if (tiers == tier).any()]


def deciles(devices: pd.DataFrame) -> pd.DataFrame:
    """Devices that took part and hold examples out, by the global model's metric on their own examples, in deciles.

    Returns:
        ``decile`` 1 (lowest metric) to 10, ``devices``, and the means ``metric_global``, ``metric_personalised``;
        fewer rows for fewer than ten devices, none without metrics.
    """
    measured = devices.dropna(subset=["metric_global", "metric_personalised"])
    return _tenths(measured.sort_values(["metric_global", "device"]), ["metric_global", "metric_personalised"], "mean")


def participation_deciles(devices: pd.DataFrame) -> pd.DataFrame:
    """All devices by accepted reports, in deciles, and what share of them each decile gave.

    Returns:
        ``decile`` 1 (fewest) to 10, ``devices``, ``accepted``, ``accepted_ratio`` of all accepted reports.
    """
    table = _tenths(devices.sort_values(["accepted", "device"]), ["accepted"], "sum")
    table["accepted_ratio"] = table["accepted"] / max(1, int(devices["accepted"].sum()))
    return table


def _tenths(ordered: pd.DataFrame, columns: list[str], reduction: str) -> pd.DataFrame:
    rows = [
        {"decile": number, "devices": len(part), **{name: part[name].agg(reduction) for name in columns}}
        for number, part in enumerate(
            (ordered.iloc[places] for places in np.array_split(np.arange(len(ordered)), 10)), start=1
        )
        if len(part)
    ]
    return pd.DataFrame(rows, columns=["decile", "devices", *columns])


def own_against_global(devices: pd.DataFrame) -> pd.DataFrame:
    """The global model and a device's own on the device's held-out examples, in order of the former.

    Returns:
        ``device``, ``phone``, ``num_held_out``, ``metric_global``, ``metric_personalised``; ``MOST_DEVICES`` rows at
        most, evenly spaced in the order.
    """
    measured = devices.dropna(subset=["metric_global", "metric_personalised"])
    ordered = measured.sort_values(["metric_global", "device"])
    kept = np.unique(np.linspace(0, len(ordered) - 1, min(len(ordered), MOST_DEVICES)).round().astype(np.int64))
    columns = ["device", "phone", "num_held_out", "metric_global", "metric_personalised"]
    return ordered.iloc[kept][columns].reset_index(drop=True)


def cost_rows(run: Run) -> pd.DataFrame:
    """What the run cost: totals over all events, and per model version, accepted report and device.

    Returns:
        ``cost``, ``total``, ``per_round``, ``per_report``, ``per_device``; rounds are those that made a model, and a
        share of none is not a number.
    """
    summary = run.summary
    names = ("downlink_bytes", "uplink_bytes", "metered_bytes", "energy_joules", "device_steps")
    totals = {name: summary[name] for name in names}
    totals["train_s"] = float(run.devices["train_s"].sum())
    over = {
        "per_round": summary["rounds"],
        "per_report": summary["reports_accepted"],
        "per_device": summary["devices"],
    }
    return pd.DataFrame(
        [
            {"cost": name, "total": total, **{per: total / count if count else np.nan for per, count in over.items()}}
            for name, total in totals.items()
        ]
    )
