"""Time of the service: seconds since its population began, which neither stand still nor go back with the wall clock.

The wall clock is read once, at the start, and never counts for less than the time of the last decision that was written
down. From then on a monotonic clock goes on from there: that the wall clock is set anew changes nothing until the next
start.
"""

import time

__all__ = ["WallClock", "wall_s"]


def wall_s() -> float:
    """Seconds since 1970, of this machine's wall clock."""
    return time.time()  # noqa: TID251 - the one module that reads it


class WallClock:
    """A running clock.

    Args:
        epoch_s: when the population began, by ``wall_s``.
        least_s: of its time that is known to have passed.
    """

    def __init__(self, *, epoch_s: float, least_s: float = 0.0) -> None:
        self._start_s = max(wall_s() - epoch_s, least_s)
        self._since_s = time.monotonic()

    def now_s(self) -> float:
        """Seconds since the population began."""
        return self._start_s + time.monotonic() - self._since_s
