"""What each device has done so far: columns over the fleet, and the back-off after a failure."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from pocketfleet.device_sim.eligibility import Reason

__all__ = ["Ledger", "back_off_s", "ineligible_column"]

# Android's JobScheduler waits 30 s after a failed job, doubling each time up to 5 h: JobInfo's
# DEFAULT_INITIAL_BACKOFF_MILLIS and MAX_BACKOFF_DELAY_MILLIS (developer.android.com, android.app.job.JobInfo).
_FIRST_BACK_OFF_S, _LONGEST_BACK_OFF_S = 30.0, 18_000.0


def ineligible_column(reason: Reason) -> str:
    """The column that counts looks at which a device was ineligible for ``reason``."""
    return f"ineligible_{reason.word}"


_COLUMNS: dict[str, tuple[Any, Any]] = {
    "free_s": (np.float64, 0.0),  # in an attempt or backing off until then
    "has_bundle": (np.bool_, False),  # programs and frozen weights are on the device
    "refused": (np.bool_, False),  # not admitted to a full population, or in as many models as it may be
    "failures": (np.int64, 0),  # drops since its last report
    "assigned": (np.int64, 0),
    "accepted": (np.int64, 0),
    "rejected": (np.int64, 0),
    "dropped": (np.int64, 0),
    "steps": (np.int64, 0),
    "train_s": (np.float64, 0.0),
    "held_back_s": (np.float64, 0.0),  # of it, slowed by heat
    "downlink_bytes": (np.int64, 0),
    "uplink_bytes": (np.int64, 0),
    "metered_bytes": (np.int64, 0),  # both directions, over links that cost money
    "energy_joules": (np.float64, 0.0),
    "trained_version": (np.int64, -1),  # the model version it last trained from
    "metric_global": (np.float64, np.nan),  # that version on its held-out examples
    "metric_personalised": (np.float64, np.nan),  # its locally trained model on the same
    **{ineligible_column(reason): (np.int32, 0) for reason in Reason if reason is not Reason.ELIGIBLE},
}


def back_off_s(failures: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """How long devices wait after their ``failures``-th drop in a row, 1 or more; any shape."""
    # Beyond 2**10 the longest wait holds anyway.
    doublings = np.minimum(failures - 1, 10).astype(np.float64)
    waits: npt.NDArray[np.float64] = np.minimum(_FIRST_BACK_OFF_S * 2.0**doublings, _LONGEST_BACK_OFF_S)
    return waits


class Ledger:
    """Columns ``[devices]``, by name in ``column``."""

    def __init__(self, devices: int) -> None:
        self.column: dict[str, npt.NDArray[Any]] = {
            name: np.full(devices, start, dtype=kind) for name, (kind, start) in _COLUMNS.items()
        }

    def add(self, name: str, devices: npt.NDArray[np.int64], amount: npt.ArrayLike = 1) -> None:
        """Add to a column; a device that comes twice is added to twice."""
        np.add.at(self.column[name], devices, amount)

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """The columns, for a checkpoint."""
        return dict(self.column)

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Continue from what ``state`` returned."""
        self.column = {name: state[name].copy() for name in _COLUMNS}
