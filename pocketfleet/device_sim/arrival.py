"""Data that arrives with use: which of its examples each device holds at a time.

Rules:

1. A device's examples are in a fixed order, and arrive in it: how many have arrived is a function of the device, the
   time and its seconds of use so far (``screen_use``), which never falls. It ends when all have arrived.
2. With a retention, an example is dropped at that age. So a device holds those from the first not yet dropped to the
   last arrived, a run of its order.
3. Every fifth example in order of arrival is held out, for as long as it is there: what measures a model has never
   trained one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pocketfleet.device_sim.screen_use import ScreenUse
from pocketfleet.training.partition import HELD_OUT_ONE_IN

if TYPE_CHECKING:
    from pocketfleet.device_sim.availability import Availability

__all__ = ["Arrival", "ArrivalSchedule", "Held", "with_use"]

Floats = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]

# ``(devices, at_s, use_s) -> how many examples have arrived``, ``[n]`` each.
ArrivalSchedule = Callable[[Int64s, Floats, Floats], Int64s]


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What devices hold at a time, ``int64 [n]``.

    Attributes:
        first_example: place of the first in the device's order of arrival.
        num_present: how many, held-out ones included.
    """

    first_example: Int64s
    num_present: Int64s

    @property
    def num_training(self) -> Int64s:
        """How many of them train."""
        arrived = self.first_example + self.num_present
        held_out = arrived // HELD_OUT_ONE_IN - self.first_example // HELD_OUT_ONE_IN
        training: Int64s = self.num_present - held_out
        return training


def with_use(examples_per_hour: float) -> ArrivalSchedule:
    """So many examples for each hour of use."""

    def arrived(device: Int64s, at_s: Floats, use_s: Floats) -> Int64s:
        del device, at_s
        count: Int64s = np.floor(use_s * examples_per_hour / 3600.0).astype(np.int64)
        return count

    return arrived


class Arrival:
    """What each device of a fleet holds at any time.

    Args:
        num_examples: all that each device will ever get, ``[devices]``.
        schedule: how many have arrived.
        day: when each device is in use.
        retention_s: the age at which an example is dropped; 0 keeps all.
    """

    def __init__(
        self, *, num_examples: Int64s, schedule: ArrivalSchedule, day: "Availability", retention_s: float = 0.0
    ) -> None:
        self._num_examples = num_examples
        self._schedule = schedule
        self._retention_s = retention_s
        # By now, and by the time at which what is dropped now arrived.
        self._use = ScreenUse(day, devices=len(num_examples))
        self._use_before = ScreenUse(day, devices=len(num_examples)) if retention_s > 0.0 else None

    def held(self, device: Int64s, at_s: Floats) -> Held:
        """What devices hold at ``at_s``; both ``[n]``, a device may come more than once."""
        arrived, dropped = self._arrived(self._use, device, at_s), np.zeros(len(device), dtype=np.int64)
        if self._use_before is not None:
            old = np.flatnonzero(at_s >= self._retention_s)
            dropped[old] = self._arrived(self._use_before, device[old], at_s[old] - self._retention_s)
        return Held(first_example=dropped, num_present=np.maximum(arrived - dropped, 0))

    def _arrived(self, use: ScreenUse, device: Int64s, at_s: Floats) -> Int64s:
        arrived = self._schedule(device, at_s, use.seconds(device, at_s))
        return np.clip(arrived, 0, self._num_examples[device])

    def _uses(self) -> dict[str, ScreenUse]:
        return {"use": self._use} | ({"use_before": self._use_before} if self._use_before is not None else {})

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Columns for a checkpoint."""
        return {f"{part}.{name}": value for part, use in self._uses().items() for name, value in use.state().items()}

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Continue from what ``state`` returned."""
        for part, use in self._uses().items():
            use.restore({name: state[f"{part}.{name}"] for name in use.state()})
