"""Where an emulated device crashes and where its connections break: drawn, so that a run can be had again.

A device dies as if its power had gone: no handler runs, nothing is tidied up. Each life of a device draws anew, so that
it does not die at the same place for ever.
"""

import math
import os
from dataclasses import dataclass
from typing import Literal

from pocketfleet.training.draws import draw_key, uniform

__all__ = ["CRASHED", "FaultPlan", "Moment"]

# The exit code of a drawn crash: EX_TEMPFAIL of sysexits(3), "try again".
CRASHED = 75
# Where it may die: with an assignment written down, with its files there, between two steps, with the report written
# down, with the report sent and its answer not yet written down.
Moment = Literal["assigned", "downloaded", "training", "trained", "reported"]
# A connection that breaks does so within so many bytes: boston's whole update has 12 KB.
_BREAKS_WITHIN_BYTES = 16_384.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultPlan:
    """What happens to one life of one device.

    Attributes:
        seed: of the draws.
        device: whose.
        life: how often it was started before.
        crash_ratio: the chance to die at each moment that it comes to; of ``training``, within all its steps.
        break_ratio: the chance of a transfer that its connection breaks once.
    """

    seed: int = 0
    device: int = 0
    life: int = 0
    crash_ratio: float = 0.0
    break_ratio: float = 0.0

    def crashes(self, moment: Moment, number: int) -> bool:
        """Whether it dies there; ``number`` counts the moments of its life."""
        return self._chance(f"crash.{moment}", number) < self.crash_ratio

    def crash(self, moment: Moment, number: int) -> None:
        """Die, if it is to."""
        if self.crashes(moment, number):
            self.die()

    def die(self) -> None:
        """The power is gone."""
        os._exit(CRASHED)

    def crash_step(self, number: int, *, steps: int) -> int:
        """How many steps it does before it dies in the next; all of them: it does not."""
        if not self.crashes("training", number):
            return steps
        return int(self._chance("crash.step", number) * steps)

    def breaks_after(self, number: int) -> float:
        """Bytes of its ``number``-th transfer after which the connection breaks; infinite: not at all."""
        if not self._chance("break", number) < self.break_ratio:
            return math.inf
        return self._chance("break.bytes", number) * _BREAKS_WITHIN_BYTES

    def _chance(self, purpose: str, number: int) -> float:
        key = draw_key(self.seed, f"emulation.{purpose}", self.device, self.life, number)
        return float(uniform(key, 1)[0])
