"""What a server has to bear, second by second of a run: check-ins, reports, bytes a second.

Rules:

1. Transfers are those of models, of reports, and of the messages by which a sum is made. A transfer's bytes are spread
   evenly over its seconds, latency and outages included; the parts that fall into a second add up. No byte is lost or
   made: a rate is the sum of what passed in a second.
2. A check-in is an assignment or a turn-away. Assignments are in the events. Without a pace the turned away came in the
   second in which their round opened; with one they came evenly between the round's last free slot and its end, which
   the table of rounds does not tell nearer. A phone that finds itself ineligible asks nobody.
3. Attempts under way at the run's end are not in the events, but for their assignment.
"""

import numpy as np
import numpy.typing as npt
import pandas as pd

from pocketfleet.device_sim.tables import DOWN_KINDS, UP_KINDS

__all__ = ["ServerLoad", "SpreadBytes"]

# A direction's kinds of events.
_TRANSFERS = {"download": DOWN_KINDS, "upload": UP_KINDS}
Floats = npt.NDArray[np.float64]


class SpreadBytes:
    """Bytes by second, ``[seconds]``, of transfers that are added piece by piece."""

    def __init__(self, seconds: int) -> None:
        self._inside = np.zeros(seconds + 1)
        # Changes of the rate of those that fill whole seconds.
        self._change = np.zeros(seconds + 2)

    def add(self, *, end_s: Floats, seconds: Floats, moved_bytes: Floats) -> None:
        """Add transfers, ``[n]``: when each ended, how long it took (0: all of it at its end), what it moved."""
        start_s = end_s - seconds
        first, last = np.floor(start_s).astype(np.int64), np.floor(end_s).astype(np.int64)
        short = first == last
        np.add.at(self._inside, last[short], moved_bytes[short])
        start_s, end_s, first, last = (column[~short] for column in (start_s, end_s, first, last))
        rate = moved_bytes[~short] / (end_s - start_s)
        np.add.at(self._inside, first, rate * (first + 1 - start_s))
        np.add.at(self._inside, last, rate * (end_s - last))
        np.add.at(self._change, first + 1, rate)
        np.add.at(self._change, last, -rate)

    def by_second(self) -> Floats:
        """The bytes of each second."""
        # Sums of rates that rose and fell leave a rest of rounding.
        return np.maximum(self._inside + np.cumsum(self._change)[: len(self._inside)], 0.0)


class ServerLoad:
    """A run's load, from its events in pieces and its rounds.

    Args:
        seconds: how long the run was.
        paced: whether phones came spread over time (``rounds.pace_s`` above 0).
        slots: assignments a round gives at once.
    """

    def __init__(self, seconds: float, *, paced: bool, slots: int) -> None:
        length = int(seconds) + 1
        self._seconds, self._paced, self._slots = seconds, paced, slots
        self.check_ins, self._reports = np.zeros(length), np.zeros(length)
        self._spread = {name: SpreadBytes(length) for name in _TRANSFERS}
        self._assigned: dict[int, int] = {}  # by round, so far
        self._full_s: dict[int, float] = {}  # by round, when its last free slot was taken

    def add_events(self, events: pd.DataFrame) -> None:
        """Further rows, in order of time."""
        kind, time_s = events["kind"], events["time_s"].to_numpy()
        for word, counts in (("assign", self.check_ins), ("report", self._reports)):
            np.add.at(counts, time_s[(kind == word).to_numpy()].astype(np.int64), 1.0)
        for word, spread in self._spread.items():
            rows = kind.isin(_TRANSFERS[word]).to_numpy()
            columns = {name: events[name].to_numpy(np.float64)[rows] for name in ("seconds", "bytes")}
            spread.add(end_s=time_s[rows], seconds=columns["seconds"], moved_bytes=columns["bytes"])
        assigned = (kind == "assign").to_numpy()
        self._note_full(events["round"].to_numpy()[assigned], time_s[assigned])

    def _note_full(self, rounds: npt.NDArray[np.int64], time_s: Floats) -> None:
        """Find the assignment that took each round's last slot."""
        for number in np.unique(rounds).tolist():
            times = time_s[rounds == number]
            before = self._assigned.get(number, 0)
            self._assigned[number] = before + len(times)
            if before < self._slots <= before + len(times):
                self._full_s[number] = float(times[self._slots - before - 1])

    def add_rounds(self, rounds: pd.DataFrame) -> None:
        """The run's rounds, after all of its events: those that were turned away."""
        columns = [rounds[name].tolist() for name in ("round", "turned_away", "opened_s", "closed_s")]
        for number, turned_away, opened_s, closed_s in zip(*columns, strict=True):
            until_s = closed_s if self._paced else opened_s
            from_s = self._full_s.get(number, opened_s) if self._paced else opened_s
            places = (np.arange(turned_away) + 0.5) / max(turned_away, 1)
            np.add.at(self.check_ins, (from_s + places * (until_s - from_s)).astype(np.int64), 1.0)

    def figures(self) -> dict[str, float]:
        """Peaks by second and means over the run, by name."""
        found = {
            "check_ins_per_s_peak": float(self.check_ins.max()),
            "check_ins_per_s_mean": float(self.check_ins.sum() / self._seconds),
            "reports_per_s_peak": float(self._reports.max()),
        }
        for word, spread in self._spread.items():
            gigabits = spread.by_second() * 8.0 / 1e9
            found[f"{word}_gbit_per_s_peak"] = float(gigabits.max())
            found[f"{word}_gbit_per_s_mean"] = float(gigabits.sum() / self._seconds)
        return found
