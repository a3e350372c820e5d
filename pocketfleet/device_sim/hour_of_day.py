"""Rounds and lost attempts by hour of the day: how long is a round at 3 a.m., who drops out at 6 p.m.

Rules:

1. Hours are those of the server's clock; virtual time 0 is midnight.
2. A round belongs to the hour of its first assignment and lasts from it to its end, abandoned rounds too.
3. An attempt belongs to the hour in which it ended. Of its hour's attempts a reason's share was lost to that reason:
   a drop, or a report that was rejected.
4. Runs of several seeds are pooled.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

__all__ = ["HoursOfDay"]

_HOURS = 24


def _hour(time_s: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    return (time_s // 3600.0).astype(np.int64) % _HOURS


class HoursOfDay:
    """Sums by hour, from tables that are added piece by piece."""

    def __init__(self) -> None:
        self._seconds: list[list[npt.NDArray[np.float64]]] = [[] for _ in range(_HOURS)]
        self._abandoned = np.zeros(_HOURS, dtype=np.int64)
        self._ended = np.zeros(_HOURS, dtype=np.int64)
        self._lost: dict[str, npt.NDArray[np.int64]] = {}

    def add_rounds(self, rounds: pd.DataFrame) -> None:
        """Closed rounds of a run."""
        hour = _hour(rounds["opened_s"].to_numpy())
        seconds = (rounds["closed_s"] - rounds["opened_s"]).to_numpy(dtype=np.float64)
        for number in range(_HOURS):
            self._seconds[number].append(seconds[hour == number])
        abandoned = (rounds["outcome"] == "abandoned").to_numpy()
        self._abandoned += np.bincount(hour[abandoned], minlength=_HOURS)

    def add_events(self, events: pd.DataFrame) -> None:
        """Further rows of a run's log."""
        ended = events[events["kind"].isin(("report", "drop"))]
        hour, reason = _hour(ended["time_s"].to_numpy()), ended["reason"]
        self._ended += np.bincount(hour, minlength=_HOURS)
        for word in {str(word) for word in reason.unique()} - {"accepted"}:
            before = self._lost.get(word, np.zeros(_HOURS, dtype=np.int64))
            self._lost[word] = before + np.bincount(hour[(reason == word).to_numpy()], minlength=_HOURS)

    def rows(self) -> list[dict[str, Any]]:
        """One row an hour; ``None`` where no round began or no attempt ended, columns ``lost_ratio_<reason>`` last."""
        return [self._row(number) for number in range(_HOURS)]

    def _row(self, number: int) -> dict[str, Any]:
        seconds, ended = np.concatenate([*self._seconds[number], np.empty(0)]), int(self._ended[number])
        p50, p95 = np.percentile(seconds, (50, 95)).tolist() if len(seconds) else (None, None)
        lost = {
            f"lost_ratio_{word}": int(counts[number]) / ended if ended else None
            for word, counts in sorted(self._lost.items())
        }
        return {
            "hour": number,
            "rounds": len(seconds),
            "abandoned": int(self._abandoned[number]),
            "round_p50_s": p50,
            "round_p95_s": p95,
            "attempts_ended": ended,
            **lost,
        }
