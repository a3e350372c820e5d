"""The tables that a run leaves, and their totals: every figure of a round or a run is a sum over its events."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from pocketfleet.device_sim.device_data import DeviceData
from pocketfleet.device_sim.fleet import Fleet
from pocketfleet.device_sim.ledger import Ledger

__all__ = [
    "device_table",
    "dropouts",
    "ineligible",
    "last_metrics",
    "personalisation",
    "round_table",
    "server_rows",
]

# What the server sees of a closed round; evaluations add ``test_`` columns.
ROUND_COLUMNS = {
    "round": "int64",
    "model_version": "int64",
    "opened_s": "float64",
    "closed_s": "float64",
    "outcome": "object",
    "assigned": "int64",
    "accepted": "int64",
    "withdrawn": "int64",
    "turned_away": "int64",
    "num_examples": "int64",
    "steps": "int64",
    "train_loss": "float64",
    "non_finite": "int64",
}
# Evaluations whose mean a summary gives beside the last one.
_LAST_EVALUATIONS = 5


def server_rows(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows of closed rounds as a table of ``ROUND_COLUMNS``, none too, and whatever ``test_`` columns they have."""
    empty = pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in ROUND_COLUMNS.items()})
    return pd.DataFrame(rows).astype(ROUND_COLUMNS) if rows else empty


def dropouts(events: pd.DataFrame) -> dict[str, int]:
    """Assignments that gave no accepted report, counted by reason: drops, and reports that were rejected."""
    return _counts(_lost(events)["reason"])


def ineligible(events: pd.DataFrame) -> dict[str, int]:
    """Devices that were found ineligible at least once, counted by reason."""
    found = events[events["kind"] == "ineligible"]
    return _counts(found.drop_duplicates(["device", "reason"])["reason"])


def _lost(events: pd.DataFrame) -> pd.DataFrame:
    return events[(events["kind"] == "drop") | ((events["kind"] == "report") & (events["reason"] != "accepted"))]


def _counts(words: "pd.Series[str]") -> dict[str, int]:
    return {str(word): int(count) for word, count in words.value_counts().sort_index().items()}


def round_table(rounds: pd.DataFrame, events: pd.DataFrame) -> pd.DataFrame:
    """One row a closed round: what the server saw, and the sums over all events of its assignments.

    Args:
        rounds: the server's rows.
        events: of the whole run. A device may end its attempt at a round after that round closed.

    Returns:
        ``rounds`` with ``downlink_bytes``, ``uplink_bytes``, ``energy_joules`` and ``dropouts_<reason>`` added.
    """
    of_devices = events[events["device"] >= 0]
    by_round = of_devices.groupby("round")
    kinds = of_devices.pivot_table(index="round", columns="kind", values="bytes", aggfunc="sum", fill_value=0)
    lost = _lost(of_devices)
    reasons = lost.groupby(["round", "reason"]).size().unstack(fill_value=0)
    table = rounds.copy()
    for column, values in {
        "downlink_bytes": kinds.get("download"),
        "uplink_bytes": kinds.get("upload"),
        "energy_joules": by_round["joules"].sum(),
        **{f"dropouts_{reason}": reasons[reason] for reason in reasons.columns},
    }.items():
        filled = table["round"].map(values).fillna(0) if values is not None else 0
        table[column] = filled if column == "energy_joules" else pd.Series(filled, index=table.index).astype("int64")
    return table


def device_table(fleet: Fleet, ledger: Ledger, data: DeviceData) -> pd.DataFrame:
    """One row a device: phone, examples, participation, costs, and its models on its own held-out examples.

    ``metric_global`` and ``metric_personalised`` are the task's headline metric on the examples that the device held
    out: of the global model that it last trained from, and of the model that this training gave.
    """
    devices = range(len(fleet))
    names = (
        "assigned",
        "accepted",
        "rejected",
        "dropped",
        "steps",
        "train_s",
        "downlink_bytes",
        "uplink_bytes",
        "energy_joules",
        "trained_version",
        "metric_global",
        "metric_personalised",
    )
    return pd.DataFrame(
        {
            "device": np.arange(len(fleet)),
            "name": list(fleet.name),
            "phone": list(fleet.phone_name),
            "num_training": data.num_training,
            "num_held_out": [len(data.held_out(device)) for device in devices],
            **{name: ledger.column[name] for name in names},
        }
    )


def last_metrics(rounds: pd.DataFrame) -> dict[str, dict[str, float]]:
    """``last`` evaluation and ``mean_of_last_five`` of every ``test_`` column; empty where none was made."""
    columns = [name for name in rounds.columns if name.startswith("test_")]
    evaluated = rounds[columns].dropna(how="all").tail(_LAST_EVALUATIONS)
    if evaluated.empty:
        return {"last": {}, "mean_of_last_five": {}}
    return {
        "last": {name: float(evaluated[name].iloc[-1]) for name in columns},
        "mean_of_last_five": {name: float(evaluated[name].mean()) for name in columns},
    }


def personalisation(devices: pd.DataFrame, headline: str) -> Mapping[str, Any]:
    """Means of the headline metric over the devices that took part and hold examples out, an equal vote each."""
    took_part = devices.dropna(subset=["metric_global", "metric_personalised"])
    if took_part.empty:
        return {"metric": headline, "devices": 0}
    return {
        "metric": headline,
        "devices": len(took_part),
        "global": float(took_part["metric_global"].mean()),
        "personalised": float(took_part["metric_personalised"].mean()),
    }
