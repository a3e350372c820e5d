"""A service's log as the tables of a run: events, rounds, devices, updates.

Rules:

1. An assignment ends once: with the first report on it; by being *withdrawn*, when its device checked in again before;
   or *silent*, when nothing had come by its deadline. Further reports on it, sent again, are no events. One whose
   deadline has not come yet is in flight.
2. Downloads, stages of an attempt, energy and eligibility are not known to a service: they have no events, and count
   as 0. Of an upload its bytes are known, its seconds are not: 0.
3. At one time, silence comes first, then a deadline's closing, then what the service decided, in its order; a closing
   by enough reports comes after the last of them.
4. The log is played to a coordinator again: it has to say what it said.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from pocketfleet.device_sim.eligibility import Reason
from pocketfleet.device_sim.events import REASONS, SERVER, EventLog
from pocketfleet.device_sim.ledger import ineligible_column
from pocketfleet.device_sim.tables import server_rows, update_rows
from pocketfleet.errors import InputError
from pocketfleet.training.partition import HELD_OUT_ONE_IN
from pocketfleet.training.round import REFUSALS, CheckInCode, CheckIns, ReportCode, Reports
from pocketfleet.training.server.recorded_log import RecordedLog

__all__ = ["RecordedRun", "recorded_run"]

Int64s = npt.NDArray[np.int64]
_TURNED_AWAY = (CheckInCode.ROUND_FULL, CheckInCode.ALREADY_REPORTED, CheckInCode.NOT_YET)
_REPORT_WORD = {int(code): code.name.lower() for code in ReportCode}


class Rounds(Protocol):
    """A coordinator that nothing happened to yet."""

    def check_in_many(self, device: npt.ArrayLike, now_s: npt.ArrayLike) -> CheckIns: ...
    def report_many(
        self, assignment_id: npt.ArrayLike, num_examples: npt.ArrayLike, now_s: npt.ArrayLike
    ) -> Reports: ...
    def advance(self, now_s: float) -> object: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedRun:
    """Tables as a simulation leaves them; ``in_flight`` assignments have no end yet, ``end_s`` is the last time."""

    events: pd.DataFrame
    rounds: pd.DataFrame
    devices: pd.DataFrame
    updates: pd.DataFrame
    in_flight: int
    end_s: float


def recorded_run(log: RecordedLog, *, coordinator: Rounds, deadline_s: float, buffered: bool) -> RecordedRun:
    """The tables of a log.

    Args:
        log: of a service.
        coordinator: one that nothing happened to yet, of the service's plan.
        deadline_s: of the plan.
        buffered: whether each assignment has a deadline of its own, or its round's.

    Raises:
        InputError: the coordinator says otherwise than the log.
    """
    check_in_round = _check_in_rounds(log, coordinator)
    ends = _ends(log, deadline_s=deadline_s, buffered=buffered)
    end_s = float(log.decisions["time_s"].iloc[-1]) if len(log.decisions) else 0.0
    over = ends[(ends["kind"] == "report") | (ends["end_s"] <= end_s)]
    return RecordedRun(
        events=_events(log, over),
        rounds=_rounds(log, check_in_round),
        devices=_devices(log, over),
        updates=_updates(log),
        in_flight=len(ends) - len(over),
        end_s=end_s,
    )


def _check_in_rounds(log: RecordedLog, coordinator: Rounds) -> pd.DataFrame:
    """The round that was open at each check-in, and what it was answered; rule 4."""
    decisions = log.decisions
    pieces: list[pd.DataFrame] = []
    runs = (decisions["kind"] != decisions["kind"].shift()).cumsum()
    for _, part in decisions.groupby(runs, sort=False):
        kind, times = part["kind"].iloc[0], part["time_s"].to_numpy()
        if kind == "check_in":
            found = coordinator.check_in_many(part["device"].to_numpy(), times)
            same = np.array_equal(found.code, part["code"]) and np.array_equal(found.assignment_id, part["assignment"])
            pieces.append(pd.DataFrame({"round": found.round, "code": found.code}))
        elif kind == "report":
            reports = coordinator.report_many(part["assignment"].to_numpy(), part["num_examples"].to_numpy(), times)
            same = np.array_equal(reports.code, part["code"])
        else:
            coordinator.advance(float(times[-1]))
            same = True
        if not same:
            raise InputError(
                f"decisions {part['sequence'].iloc[0]} to {part['sequence'].iloc[-1]} come out otherwise than they "
                "were written down: the state's experiment.toml has another [rounds], or the database was altered"
            )
    return pd.concat(pieces, ignore_index=True) if pieces else pd.DataFrame({"round": [], "code": []}, dtype=np.int64)


def _ends(log: RecordedLog, *, deadline_s: float, buffered: bool) -> pd.DataFrame:
    """How and when each assignment ended or will have; rule 1. ``order`` places it among decisions of its time."""
    decisions = log.decisions
    reports = decisions[decisions["kind"] == "report"].drop_duplicates("assignment").set_index("assignment")
    handed_out = decisions[(decisions["kind"] == "check_in") & (decisions["code"] == CheckInCode.ASSIGNED)]
    work = log.work.set_index("assignment").join(handed_out.set_index("assignment")["sequence"])
    again = work.groupby("device")[["time_s", "sequence", "round"]].shift(-1)
    opened_s = log.rounds.set_index("round")["opened_s"]
    if buffered:
        given_up_s = work["time_s"] + deadline_s
        returned = again["time_s"] < given_up_s
    else:
        given_up_s = work["round"].map(opened_s).fillna(np.inf) + deadline_s
        returned = again["round"] == work["round"]
    reported = work.index.isin(reports.index)
    first = reports.reindex(work.index)
    kind = np.select([reported, returned], ["report", "withdrawn"], "silent")
    return pd.DataFrame(
        {
            "device": work["device"],
            "round": work["round"],
            "kind": kind,
            "end_s": np.select([reported, returned], [first["time_s"], again["time_s"]], given_up_s),
            "order": np.select([reported, returned], [2.0 * first["sequence"], 2.0 * again["sequence"] - 1.0], -2.0),
            "code": first["code"].fillna(-1).astype(np.int64),
        },
        index=work.index,
    )


def _events(log: RecordedLog, over: pd.DataFrame) -> pd.DataFrame:
    decisions, events = log.decisions, EventLog()
    order: list[npt.NDArray[np.float64]] = []
    handed_out = decisions[(decisions["kind"] == "check_in") & (decisions["code"] == CheckInCode.ASSIGNED)]
    rounds = log.work.set_index("assignment")["round"]
    events.add(handed_out["time_s"], handed_out["device"], handed_out["assignment"].map(rounds), "assign")
    order.append(2.0 * handed_out["sequence"].to_numpy())
    reports = over[over["kind"] == "report"]
    # All reports of a service have one size: it is a function of shapes.
    size = int(log.reports["bytes"].max()) if len(log.reports) else 0
    events.add(reports["end_s"], reports["device"], reports["round"], "upload", bytes=size)
    order.append(reports["order"].to_numpy() - 0.5)
    words = np.array([REASONS.index(_REPORT_WORD[code]) for code in reports["code"]], dtype=np.int8)
    events.add(reports["end_s"], reports["device"], reports["round"], "report", reason=words)
    order.append(reports["order"].to_numpy())
    lost = over[over["kind"] != "report"]
    words = np.array([REASONS.index(word) for word in lost["kind"]], dtype=np.int8)
    events.add(lost["end_s"], lost["device"], lost["round"], "drop", reason=words)
    order.append(lost["order"].to_numpy())
    closed = log.rounds
    words = np.array([REASONS.index(word) for word in _outcomes(closed)], dtype=np.int8)
    events.add(closed["closed_s"], SERVER, closed["round"], "close", reason=words)
    order.append(_closing_order(log))
    table = events.take()
    table = table.take(np.lexsort((np.concatenate(order), table["time_s"].to_numpy())))
    return table.assign(sequence=np.arange(len(table), dtype=np.int64)).reset_index(drop=True)


def _outcomes(closed: pd.DataFrame) -> npt.NDArray[Any]:
    return np.where(closed["succeeded"].astype(bool), closed["reason"], "abandoned")


def _closing_order(log: RecordedLog) -> npt.NDArray[np.float64]:
    """Rule 3."""
    accepted = log.decisions[(log.decisions["kind"] == "report") & (log.decisions["code"] == ReportCode.ACCEPTED)]
    counted_in = accepted["assignment"].map(log.reports.set_index("assignment")["counted_in"])
    last = accepted["sequence"].groupby(counted_in.to_numpy()).max()
    after = 2.0 * log.rounds["round"].map(last).fillna(-1.0).to_numpy() + 0.5
    order: npt.NDArray[np.float64] = np.where(log.rounds["reason"] == "deadline", -1.0, after)
    return order


def _rounds(log: RecordedLog, check_ins: pd.DataFrame) -> pd.DataFrame:
    """The columns of a simulation; rounds are numbered 0, 1, 2, ..."""
    closed, count = log.rounds, len(log.rounds)
    succeeded = closed["succeeded"].to_numpy(dtype=np.bool_)
    of_round = check_ins["round"].to_numpy(dtype=np.int64)
    code = check_ins["code"].to_numpy(dtype=np.int64)

    def told(*codes: CheckInCode) -> Int64s:
        return np.bincount(of_round[np.isin(code, codes)], minlength=count)[:count]

    in_closed = log.reports["counted_in"].to_numpy(dtype=np.int64) < count
    reports = log.reports[in_closed]
    place = reports["counted_in"].to_numpy(dtype=np.int64)
    version = closed["model_version"].to_numpy(dtype=np.int64)
    staleness = version[place] - reports["model_version"].to_numpy(dtype=np.int64)
    counted = np.bincount(place, minlength=count)
    oldest = np.zeros(count, dtype=np.int64)
    np.maximum.at(oldest, place, staleness)

    def total(name: str) -> Int64s:
        sums = np.bincount(place, weights=reports[name].to_numpy(dtype=np.float64), minlength=count)
        return np.where(succeeded, sums, 0.0).astype(np.int64)

    made = log.models.set_index("round")
    loss = closed["round"].map(made["train_loss"]).to_numpy(dtype=np.float64)
    used = closed["round"].map(made["num_updates"]).to_numpy(dtype=np.float64)
    mean = np.bincount(place, weights=staleness, minlength=count) / np.where(counted, counted, np.nan)
    columns: dict[str, Any] = {
        "round": closed["round"],
        "model_version": version + succeeded,
        "opened_s": closed["opened_s"],
        "closed_s": closed["closed_s"],
        "outcome": _outcomes(closed),
        "looks": told(*CheckInCode),
        "assigned": closed["assigned"],
        "accepted": closed["accepted"],
        "withdrawn": closed["withdrawn"],
        "turned_away": told(*_TURNED_AWAY),
        "held": told(CheckInCode.HELD),
        "candidates": np.zeros(count),
        "refused": told(*REFUSALS),
        "num_examples": total("num_examples"),
        "steps": total("steps"),
        "staleness_mean": mean,
        "staleness_max": oldest,
        "train_loss": loss,
        "non_finite": np.where(np.isnan(used), 0, counted - np.nan_to_num(used)),
    }
    columns |= _privacy_columns(log, columns["model_version"])
    return server_rows([dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)])


def _privacy_columns(log: RecordedLog, version: Int64s) -> dict[str, Any]:
    """What was given away up to each round, by the newest version after it, and the norm that its updates had."""
    if log.privacy.empty:
        return {}
    made = log.privacy.set_index("version")
    # Without a value nothing is promised.
    epsilon = made["epsilon"].astype(np.float64).fillna(np.inf)
    return {
        "epsilon": epsilon.reindex(version).fillna(0.0),
        "clip_norm": made["clip_norm"].reindex(version).fillna(made["clip_norm"].iloc[0]),
    }


def _devices(log: RecordedLog, over: pd.DataFrame) -> pd.DataFrame:
    numbers = np.arange(log.devices)
    newest = log.reports.sort_values("time_s", kind="stable").drop_duplicates("device", keep="last").set_index("device")
    held = newest["examples_held"].reindex(numbers).fillna(0).astype(np.int64)
    accepted = (over["kind"] == "report") & (over["code"] == ReportCode.ACCEPTED)

    def counted(of: "pd.Series[int]") -> npt.NDArray[np.int64]:
        return np.bincount(of.to_numpy(dtype=np.int64), minlength=log.devices)

    size = int(log.reports["bytes"].max()) if len(log.reports) else 0
    reports = counted(over["device"][over["kind"] == "report"])
    nothing, none = np.zeros(log.devices, dtype=np.int64), np.zeros(log.devices)
    columns: dict[str, Any] = {
        "device": numbers,
        "name": [f"device {number}" for number in numbers],
        "phone": "",
        "attack": "",
        "battery_joules": np.nan,
        "num_training": held - held // HELD_OUT_ONE_IN,
        "num_held_out": held // HELD_OUT_ONE_IN,
        "assigned": counted(log.work["device"]),
        "accepted": counted(over["device"][accepted]),
        "rejected": counted(over["device"][(over["kind"] == "report") & ~accepted]),
        "dropped": counted(over["device"][over["kind"] != "report"]),
        "steps": log.reports.groupby("device")["steps"].sum().reindex(numbers).fillna(0).astype(np.int64),
        "train_s": none,
        "held_back_s": none,
        "downlink_bytes": nothing,
        "uplink_bytes": size * reports,
        "metered_bytes": nothing,
        "energy_joules": none,
        # What a device keeps is on the device.
        "trained_version": nothing - 1,
        "metric_global": newest["metric_global"].reindex(numbers).astype(np.float64),
        "metric_personalised": newest["metric_personalised"].reindex(numbers).astype(np.float64),
        **{ineligible_column(reason): nothing for reason in Reason if reason is not Reason.ELIGIBLE},
    }
    return pd.DataFrame(columns, index=numbers)


def _updates(log: RecordedLog) -> pd.DataFrame:
    made = log.models.set_index("round")["num_updates"]
    used = log.reports[log.reports["counted_in"].map(made).fillna(0) > 0].sort_values(
        ["counted_in", "device"], kind="stable"
    )
    start_s = log.work.set_index("assignment")["time_s"]
    return update_rows(
        [
            {
                "start_s": used["assignment"].map(start_s).to_numpy(dtype=np.float64),
                "end_s": used["time_s"].to_numpy(dtype=np.float64),
                "round": used["round"].to_numpy(dtype=np.int64),
                "device": used["device"].to_numpy(dtype=np.int64),
                "model_version": used["model_version"].to_numpy(dtype=np.int64),
                "num_present": used["examples_held"].to_numpy(dtype=np.int64),
                "num_held_out": used["examples_held"].to_numpy(dtype=np.int64) // HELD_OUT_ONE_IN,
                **{
                    name: used[name].to_numpy(dtype=np.float64)
                    for name in ("train_loss", "metric_global", "metric_personalised")
                },
            }
        ]
    )
