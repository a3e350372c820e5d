"""What an attempt that is over leaves in the event log: a row a stage that it reached, and how it ended."""

import numpy as np
import numpy.typing as npt

from pocketfleet.device_sim.attempt import Drop, Stage
from pocketfleet.device_sim.events import REASONS, EventLog
from pocketfleet.device_sim.flight import Flights
from pocketfleet.training.round import ReportCode

__all__ = ["log_ends"]

# ``events.REASONS`` of a ``Drop`` and of a ``ReportCode``, by their numbers.
_DROP_REASON = np.array([REASONS.index("" if drop is Drop.NONE else drop.word) for drop in Drop], dtype=np.int8)
_REPORT_REASON = np.array([REASONS.index(code.name.lower()) for code in ReportCode], dtype=np.int8)


def log_ends(log: EventLog, flights: Flights, report_code: npt.NDArray[np.int8]) -> None:
    """Log attempts that are over.

    Args:
        log: to add rows to.
        flights: in the order of their ends, ``[n]``.
        report_code: ``ReportCode`` of those that reported, ``[n]``; anything for those that dropped out.
    """
    _log_stages(log, flights)
    dropped = flights["drop"] != Drop.NONE
    for kind, mask, reason in (
        ("drop", dropped, _DROP_REASON[flights["drop"]]),
        ("report", ~dropped, _REPORT_REASON[report_code]),
    ):
        of_kind = flights[mask]
        log.add(of_kind["end_s"], of_kind["device"], of_kind["round"], kind, reason=reason[mask])


def _log_stages(log: EventLog, flights: Flights) -> None:
    time_s = flights["start_s"]
    for stage, name, moved, metered in (
        (Stage.DOWNLOAD, "download", flights["downlink_bytes"], flights["metered_downlink_bytes"]),
        (Stage.TRAIN, "train", 0, 0),
        (Stage.UPLOAD, "upload", flights["uplink_bytes"], flights["metered_uplink_bytes"]),
    ):
        seconds = flights[f"{name}_s"]
        time_s = time_s + seconds
        cut = np.where(flights["stage"] == stage, flights["drop"], Drop.NONE)
        if stage == Stage.TRAIN:
            cut = np.where(flights["interrupted"] != Drop.NONE, flights["interrupted"], cut)
        reached = flights["stage"] >= stage
        log.add(
            time_s[reached],
            flights["device"][reached],
            flights["round"][reached],
            name,
            seconds=seconds[reached],
            bytes=np.broadcast_to(moved, reached.shape)[reached],
            metered_bytes=np.broadcast_to(metered, reached.shape)[reached],
            joules=flights[f"{name}_joules"][reached],
            steps=flights["steps"][reached] if stage == Stage.TRAIN else 0,
            reason=_DROP_REASON[cut[reached]],
        )
