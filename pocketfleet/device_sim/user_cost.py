"""What a deployment costs each of its users, as percentiles over users.

Rules:

1. A month has 30 days; a run's sums are scaled by 30 over its days. A short run overstates what the unluckiest pay in a
   month: over more days luck evens out. Shares of phones are of the run itself and not scaled.
2. Battery is the joules that downloads, training and uploads drew above idle, in percent of the phone's full battery,
   whether or not it was charging meanwhile. A *training day* is a day in which an attempt of the phone ended.
3. Percentiles are interpolated. They come once over all devices and once over those that were assigned work.
"""

import numpy as np
import numpy.typing as npt
import pandas as pd

__all__ = ["DAYS_A_MONTH", "QUANTILES", "TrainingDays", "user_figures"]

DAYS_A_MONTH = 30.0
QUANTILES = (50, 95, 99)
_DAY_S = 86_400.0
_MEGA = 1e6


class TrainingDays:
    """On which days each device's attempts ended, from a log that comes in pieces."""

    def __init__(self, devices: int, seconds: float) -> None:
        self._seen = np.zeros((devices, int(seconds / _DAY_S) + 1), dtype=np.bool_)

    def add_events(self, events: pd.DataFrame) -> None:
        """Further rows."""
        ended = events["kind"].isin(("report", "drop")).to_numpy()
        day = (events["time_s"].to_numpy()[ended] // _DAY_S).astype(np.int64)
        self._seen[events["device"].to_numpy()[ended], day] = True

    def counts(self) -> npt.NDArray[np.int64]:
        """Days by device."""
        days: npt.NDArray[np.int64] = self._seen.sum(axis=1, dtype=np.int64)
        return days


def user_figures(
    devices: pd.DataFrame, *, training_days: npt.NDArray[np.int64], days: float
) -> dict[str, float | None]:
    """Figures by name, such as ``battery_percent_per_month_all_p50``; ``None`` where nobody was assigned.

    Args:
        devices: a run's table of devices.
        training_days: ``[devices]``.
        days: how long the run was.
    """
    took_part = (devices["assigned"] > 0).to_numpy()
    moved = (devices["downlink_bytes"] + devices["uplink_bytes"]).to_numpy(np.float64)
    metered = devices["metered_bytes"].to_numpy(np.float64)
    battery_percent = 100.0 * (devices["energy_joules"] / devices["battery_joules"]).to_numpy(np.float64)
    month = DAYS_A_MONTH / days
    a_month = {
        "battery_percent_per_month": battery_percent * month,
        "metered_mb_per_month": metered * month / _MEGA,
        "unmetered_mb_per_month": (moved - metered) * month / _MEGA,
        "training_minutes_per_month": devices["train_s"].to_numpy(np.float64) * month / 60.0,
    }
    found: dict[str, float | None] = {}
    for name, values in a_month.items():
        found |= _quantiles(f"{name}_all", values) | _quantiles(f"{name}_assigned", values[took_part])
    trained = training_days > 0
    found |= _quantiles("battery_percent_per_training_day", battery_percent[trained] / training_days[trained])
    return found | {
        "never_assigned_ratio": float(np.mean(~took_part)),
        "never_trained_ratio": float(np.mean((devices["steps"] == 0).to_numpy())),
        "never_accepted_ratio": float(np.mean((devices["accepted"] == 0).to_numpy())),
    }


def _quantiles(name: str, values: npt.NDArray[np.float64]) -> dict[str, float | None]:
    found = np.percentile(values, QUANTILES).tolist() if len(values) else [None] * len(QUANTILES)
    return {f"{name}_p{quantile}": value for quantile, value in zip(QUANTILES, found, strict=True)}
