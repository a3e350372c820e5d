"""What each device has done so far: columns over the fleet that only ever grow, and the back-off after a failure."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Ledger"]

# Android's JobScheduler waits 30 s after a failed job, doubling each time up to 5 h: JobInfo's
# DEFAULT_INITIAL_BACKOFF_MILLIS and MAX_BACKOFF_DELAY_MILLIS (developer.android.com, android.app.job.JobInfo).
_FIRST_BACK_OFF_S, _LONGEST_BACK_OFF_S = 30.0, 18_000.0

_COLUMNS: dict[str, tuple[Any, Any]] = {
    "busy": (np.bool_, False),  # in an attempt
    "has_bundle": (np.bool_, False),  # programs and frozen weights are on the device
    "reported_round": (np.int64, -1),  # the last round that accepted its report
    "not_before_s": (np.float64, 0.0),  # backs off until then
    "dropped_round": (np.int64, -1),  # the last round that it dropped out of
    "failures": (np.int64, 0),  # drops since its last report
    "reason": (np.int8, -1),  # eligibility at the last look; -1: never looked
    "assigned": (np.int64, 0),
    "accepted": (np.int64, 0),
    "rejected": (np.int64, 0),
    "dropped": (np.int64, 0),
    "steps": (np.int64, 0),
    "train_s": (np.float64, 0.0),
    "downlink_bytes": (np.int64, 0),
    "uplink_bytes": (np.int64, 0),
    "energy_joules": (np.float64, 0.0),
    "trained_version": (np.int64, -1),  # the model version it last trained from
    "metric_global": (np.float64, np.nan),  # that version on its held-out examples
    "metric_personalised": (np.float64, np.nan),  # its locally trained model on the same
}


class Ledger:
    """Columns ``[devices]``, by name in ``column``."""

    def __init__(self, devices: int) -> None:
        self.column: dict[str, npt.NDArray[Any]] = {
            name: np.full(devices, start, dtype=kind) for name, (kind, start) in _COLUMNS.items()
        }

    def drop(self, device: int, now_s: float, *, round_index: int) -> None:
        """A device dropped out of a round: it comes back later, and later still each time."""
        self.column["dropped"][device] += 1
        self.column["dropped_round"][device] = round_index
        self.column["failures"][device] += 1
        # Beyond 2**10 the longest wait holds anyway.
        doublings = min(int(self.column["failures"][device]) - 1, 10)
        self.column["not_before_s"][device] = now_s + min(_FIRST_BACK_OFF_S * 2.0**doublings, _LONGEST_BACK_OFF_S)

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """The columns, for a checkpoint."""
        return dict(self.column)

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Continue from what ``state`` returned."""
        self.column = {name: state[name].copy() for name in _COLUMNS}
