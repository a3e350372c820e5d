"""The tables that a run leaves, and their totals: every figure of a round or a run is a sum over its events."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from pocketfleet.device_sim.attack import Attackers
from pocketfleet.device_sim.eligibility import Reason
from pocketfleet.device_sim.fleet import Fleet
from pocketfleet.device_sim.ledger import Ledger, ineligible_column

__all__ = [
    "DOWN_KINDS",
    "UP_KINDS",
    "EventTotals",
    "ExampleCounts",
    "device_table",
    "final_states",
    "ineligible",
    "last_metrics",
    "personalisation",
    "release_rows",
    "server_rows",
    "update_rows",
]

# What the server sees of a closed round; evaluations add ``test_`` columns.
ROUND_COLUMNS = {
    "round": "int64",
    "model_version": "int64",
    "opened_s": "float64",
    "closed_s": "float64",
    "outcome": "object",
    "looks": "int64",
    "assigned": "int64",
    "accepted": "int64",
    "withdrawn": "int64",
    "turned_away": "int64",
    "held": "int64",
    "candidates": "int64",
    "refused": "int64",
    "num_examples": "int64",
    "steps": "int64",
    "staleness_mean": "float64",
    "staleness_max": "int64",
    "train_loss": "float64",
    "non_finite": "int64",
}
# One update that became part of a model: what the device held when it started, and its models on what it then held out.
UPDATE_COLUMNS = {
    "start_s": "float64",
    "end_s": "float64",
    "round": "int64",
    "device": "int64",
    "model_version": "int64",
    "num_present": "int64",
    "num_held_out": "int64",
    "train_loss": "float64",
    "metric_global": "float64",
    "metric_personalised": "float64",
}
# What a version became for devices, where a gate decides: see ``training.release_gate``. ``tried`` and ``released`` are
# the metric of that version and of the one released then, by so many ``evaluations``.
RELEASE_COLUMNS = {
    "time_s": "float64",
    "version": "int64",
    "round": "int64",
    "state": "object",
    "reason": "object",
    "evaluations": "int64",
    "tried": "float64",
    "released": "float64",
}
# Kinds of events whose bytes came down, and went up.
DOWN_KINDS, UP_KINDS = ("download", "evaluate", "receive"), ("upload", "shares", "masked", "unmask")
# Evaluations whose mean a summary gives beside the last one.
_LAST_EVALUATIONS = 5


def server_rows(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows of closed rounds as a table of ``ROUND_COLUMNS``, none too, and whatever else they have.

    That is ``test_`` columns, and of a private run ``epsilon`` so far and the ``clip_norm``.
    """
    return _typed(rows, ROUND_COLUMNS)


def release_rows(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows of what versions became as a table of ``RELEASE_COLUMNS``; none too."""
    return _typed(rows, RELEASE_COLUMNS)


def update_rows(pieces: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Columns of updates that became part of a model, in pieces, as a table of ``UPDATE_COLUMNS``; none too."""
    columns = {
        name: np.concatenate([np.empty(0, dtype=kind), *(np.atleast_1d(piece[name]) for piece in pieces)])
        for name, kind in UPDATE_COLUMNS.items()
    }
    return pd.DataFrame(columns).astype(UPDATE_COLUMNS)


def _typed(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> pd.DataFrame:
    empty = pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in columns.items()})
    return pd.DataFrame(rows).astype(columns) if rows else empty


def ineligible(ledger: Ledger) -> dict[str, int]:
    """Devices that were found ineligible at least once, counted by reason."""
    counts = {
        reason.word: int((ledger.column[ineligible_column(reason)] > 0).sum())
        for reason in Reason
        if reason is not Reason.ELIGIBLE
    }
    return {word: count for word, count in sorted(counts.items()) if count}


class EventTotals:
    """Sums over a run's events, which come in pieces: of the whole run, and of each closed round.

    Numbers are added one after the other, so that sums do not depend on where the pieces end: that the clock decides.

    Args:
        rounds: how many rounds closed. A device may end its attempt at a round after that round closed; what belongs to
            a round that never closed counts in the run alone.
    """

    def __init__(self, rounds: int) -> None:
        self._rounds = rounds
        names = ("train_s", "downlink_bytes", "uplink_bytes", "metered_bytes", "energy_joules")
        # The last place is of rounds that never closed, here and below.
        self._of_round = {name: np.zeros(rounds + 1) for name in names}
        self._lost: dict[str, npt.NDArray[np.int64]] = {}  # by reason
        self.assigned = self.accepted = self.downlink_bytes = self.uplink_bytes = self.metered_bytes = 0

    def add(self, events: pd.DataFrame) -> None:
        """Further rows."""
        kind, reason = events["kind"], events["reason"]
        of_devices = (events["device"] >= 0).to_numpy()
        place = np.minimum(events["round"].to_numpy(), self._rounds)
        self.assigned += int((kind == "assign").sum())
        accepted = (kind == "report") & (reason == "accepted")
        self.accepted += int(accepted.sum())
        for name, of_kinds in (("downlink_bytes", DOWN_KINDS), ("uplink_bytes", UP_KINDS)):
            chosen = kind.isin(of_kinds).to_numpy()
            setattr(self, name, getattr(self, name) + int(events["bytes"].to_numpy()[chosen].sum()))
            np.add.at(self._of_round[name], place[chosen], events["bytes"].to_numpy()[chosen])
        trained = (kind == "train").to_numpy()
        np.add.at(self._of_round["train_s"], place[trained], events["seconds"].to_numpy()[trained])
        self.metered_bytes += int(events["metered_bytes"].sum())
        for name, column in (("metered_bytes", "metered_bytes"), ("energy_joules", "joules")):
            np.add.at(self._of_round[name], place[of_devices], events[column].to_numpy()[of_devices])
        lost = ((kind == "drop") | (kind == "report")).to_numpy() & ~accepted.to_numpy()
        for word in reason[lost].unique():
            counted = np.bincount(place[lost & (reason == word).to_numpy()], minlength=self._rounds + 1)
            self._lost[word] = self._lost.get(word, np.zeros(self._rounds + 1, dtype=np.int64)) + counted

    @property
    def energy_joules(self) -> float:
        """Of all devices; a server's events have none."""
        return math.fsum(self._of_round["energy_joules"])

    @property
    def dropouts(self) -> dict[str, int]:
        """Assignments that gave no accepted report, counted by reason: drops, and reports that were rejected."""
        return {word: int(counts.sum()) for word, counts in sorted(self._lost.items())}

    def round_table(self, rounds: pd.DataFrame) -> pd.DataFrame:
        """The server's rows, row ``r`` of round ``r``, and the sums over all events of each round's assignments.

        Returns:
            ``rounds`` with ``train_s``, ``downlink_bytes``, ``uplink_bytes``, ``metered_bytes``, ``energy_joules`` and
            ``dropouts_<reason>`` added; ``train_s`` are the devices' seconds of training, added up.
        """
        table = rounds.copy()
        for name, sums in self._of_round.items():
            closed = sums[: self._rounds]
            table[name] = closed.astype(np.int64) if name.endswith("_bytes") else closed
        for word, counts in sorted(self._lost.items()):
            table[f"dropouts_{word}"] = counts[: self._rounds]
        return table


class ExampleCounts(Protocol):
    """How many examples each device trains on and holds out, ``[devices]``: ``device_data.DeviceData``."""

    @property
    def num_training(self) -> npt.NDArray[np.int64]:
        """That it trains on."""
        ...

    @property
    def num_held_out(self) -> npt.NDArray[np.int64]:
        """That it never trains on."""
        ...


def device_table(fleet: Fleet, ledger: Ledger, data: ExampleCounts, attackers: Attackers | None = None) -> pd.DataFrame:
    """One row a device: phone, examples, participation, costs, and its models on its own held-out examples.

    ``battery_joules`` is what its battery holds when full.
    ``metric_global`` and ``metric_personalised`` are the task's headline metric on the examples that the device held
    out: of the global model that it last trained from, and of the model that this training gave.
    ``ineligible_<reason>`` counts the looks at which it was not eligible.
    ``attack`` is what it does to harm the training, empty if it is honest.
    """
    names = (
        "assigned",
        "accepted",
        "rejected",
        "dropped",
        "steps",
        "train_s",
        "held_back_s",
        "downlink_bytes",
        "uplink_bytes",
        "metered_bytes",
        "energy_joules",
        "trained_version",
        "metric_global",
        "metric_personalised",
        *(ineligible_column(reason) for reason in Reason if reason is not Reason.ELIGIBLE),
    )
    return pd.DataFrame(
        {
            "device": np.arange(len(fleet)),
            "name": list(fleet.name),
            "phone": list(fleet.phone_name),
            "attack": "" if attackers is None else attackers.word,
            "battery_joules": fleet.battery_capacity_joules,
            "num_training": data.num_training,
            "num_held_out": data.num_held_out,
            **{name: ledger.column[name] for name in names},
        },
        # Of a million devices a copy of the ledger's columns is 150 MB.
        copy=False,
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


def final_states(releases: pd.DataFrame) -> dict[str, int]:
    """How many versions, but for the untrained one, ended as what; ``releases`` as ``RELEASE_COLUMNS``."""
    last = releases[releases["version"] > 0].groupby("version")["state"].last()
    return {str(state): int(count) for state, count in sorted(last.value_counts().items())}


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
