"""A phone's own time, which may run faster than the wall's, and waiting, which others can end.

Rules:

1. A second of the wall is ``speed`` seconds of the phone. The phone's time starts where it was left: what the wall
   clock went on meanwhile counts too, and it never goes back.
2. While the process runs, a monotonic clock counts: that the wall clock is set anew changes nothing.
3. Waiting ends when its time has come; at once when the device is stopped, ``Stopped``; and, where one waits for news,
   when there are any.
"""

import math
import threading
import time

from pocketfleet.training.server.wall_clock import wall_s

__all__ = ["PhoneClock", "Stopped"]


class Stopped(Exception):  # noqa: N818 - nothing went wrong
    """The device is to stop."""


class PhoneClock:
    """A running clock, in the phone's seconds unless a name says wall.

    Args:
        speed: above 0; 1 is real time.
        first_s: what the phone's clock showed...
        first_wall_s: ...at this time of the wall, ``wall_s``; now, if left out.
        least_s: of the phone's time that is known to have passed.
    """

    def __init__(
        self, *, speed: float = 1.0, first_s: float = 0.0, first_wall_s: float | None = None, least_s: float = 0.0
    ) -> None:
        if not (speed > 0.0 and math.isfinite(speed)):
            raise ValueError(f"speed must be above 0 and finite, got {speed}")
        passed_s = 0.0 if first_wall_s is None else max(wall_s() - first_wall_s, 0.0)
        self.speed = speed
        self._start_s = max(first_s + passed_s * speed, least_s)
        self._since_s = time.monotonic()
        self._changed = threading.Condition()
        self._stopped = False
        self._news = 0

    def now_s(self) -> float:
        """The phone's time."""
        return self._start_s + (time.monotonic() - self._since_s) * self.speed

    @property
    def news(self) -> int:
        """How often there were news so far: what ``wait`` takes."""
        return self._news

    def ring(self) -> None:
        """There are news, such as a new round."""
        with self._changed:
            self._news += 1
            self._changed.notify_all()

    def stop(self) -> None:
        """Every wait from now on raises ``Stopped``, those under way too."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def wait_until(self, at_s: float, *, news: int | None = None) -> None:
        """Wait until the phone's time is ``at_s``, or until there are more ``news`` than so many.

        Raises:
            Stopped: the device is to stop.
        """
        with self._changed:
            while True:
                if self._stopped:
                    raise Stopped
                left_s = (at_s - self.now_s()) / self.speed
                if left_s <= 0.0 or (news is not None and self._news > news):
                    return
                # A lock's longest wait is bounded; days fit.
                self._changed.wait(min(left_s, threading.TIMEOUT_MAX))

    def wait(self, seconds: float, *, news: int | None = None) -> None:
        """Wait for so many seconds of the phone; see ``wait_until``."""
        self.wait_until(self.now_s() + seconds, news=news)

    def wait_wall(self, seconds: float, *, news: int | None = None) -> None:
        """Wait for so many seconds of the wall; see ``wait_until``."""
        self.wait(seconds * self.speed, news=news)
