"""What came in each of the last minutes: check-ins, assignments, reports that count, dropouts.

Counted in memory, from when this process began to lead; what happened before is in the database. A dropout is an
assignment on which nothing had come ``deadline_s`` after it was handed out; it counts in the minute in which that is
known. Devices that were asked in excess and report late are none.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Literal

from pydantic import BaseModel

__all__ = ["Minute", "MinuteCounts"]

# What a chart shows.
_KEPT = 60
_MINUTE_S = 60.0

What = Literal["check_ins", "assigned", "reports", "dropouts"]


class Minute(BaseModel):
    """Counts of a minute; ``ago`` 0 is the one that runs."""

    ago: int
    check_ins: int
    assigned: int
    reports: int
    dropouts: int


class MinuteCounts:
    """One thread's own.

    Args:
        deadline_s: after which an assignment is a dropout.
        lost: called with how many dropouts there are more.
    """

    def __init__(self, *, deadline_s: float, lost: Callable[[int], None] = lambda _count: None) -> None:
        self._deadline_s = deadline_s
        self._lost = lost
        self._minutes: dict[int, Counter[What]] = {}  # by number
        self._live: OrderedDict[int, float] = OrderedDict()  # assignments by when they were handed out

    def checked_in(self, *, now_s: float) -> None:
        """A device asked for work."""
        self._count("check_ins", now_s)

    def assigned(self, assignment: int, *, now_s: float) -> None:
        """It got some."""
        self._count("assigned", now_s)
        self._live[assignment] = now_s

    def reported(self, assignment: int, *, accepted: bool, now_s: float) -> None:
        """A report came."""
        if accepted:
            self._count("reports", now_s)
        self._live.pop(assignment, None)

    def minutes(self, *, now_s: float) -> list[Minute]:
        """The last ones, the one that runs first."""
        self.look(now_s=now_s)
        newest = int(now_s // _MINUTE_S)
        rows = [(ago, self._minutes.get(newest - ago, Counter())) for ago in range(_KEPT)]
        return [
            Minute(
                ago=ago,
                check_ins=row["check_ins"],
                assigned=row["assigned"],
                reports=row["reports"],
                dropouts=row["dropouts"],
            )
            for ago, row in rows
        ]

    def look(self, *, now_s: float) -> None:
        """Count the dropouts that are known by now."""
        lost = 0
        while self._live and next(iter(self._live.values())) + self._deadline_s <= now_s:
            _, began_s = self._live.popitem(last=False)
            self._count("dropouts", began_s + self._deadline_s)
            lost += 1
        if lost:
            self._lost(lost)

    def _count(self, what: What, at_s: float) -> None:
        number = int(at_s // _MINUTE_S)
        if number not in self._minutes:
            self._minutes[number] = Counter()
            for old in [one for one in self._minutes if one <= number - _KEPT]:
                del self._minutes[old]
        self._minutes[number][what] += 1
