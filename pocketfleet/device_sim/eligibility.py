"""May this phone train now? The rule that simulated devices and the Android app share.

Rules:

1. A device with fewer than ``min_examples`` examples does not train.
2. The training program must fit into the free memory (``memory.fits``; ``memory.runs_short`` while it trains).
3. Idle, charging, unmetered: each asked only if the rule says so.
4. The battery is at ``min_battery_ratio`` or above, also while it charges.
5. The phone is not hot, by its skin or by its thermal status (``thermal_policy.too_hot``).
6. If several fail, the reason is the first in the order of ``Reason``.
7. A phone that trains already is asked the same, but for memory and heat, whose limits are then others.

``tests/eligibility_cases.json`` holds cases that both the simulator's and the app's rule are held against.
"""

import enum
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Reason", "Rule", "judge"]

Bools = npt.NDArray[np.bool_]


class Reason(enum.IntEnum):
    """Why a device may not train; the lower-case name is what an event log prints."""

    ELIGIBLE = 0
    NO_EXAMPLES = 1
    LOW_MEMORY = 2
    IN_USE = 3
    NOT_CHARGING = 4
    METERED = 5
    LOW_BATTERY = 6
    TOO_HOT = 7

    @property
    def word(self) -> str:
        """The name in an event log, such as ``not_charging``."""
        return self.name.lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What a phone must be to train.

    Idle, charging and unmetered is the rule of Bonawitz et al. 2019, "Towards federated learning at
    scale: system design" (arXiv:1902.01046). The battery's floor of 0.3 is assumed: it leaves a user
    who unplugs the phone a third of a day.
    """

    idle: bool = True
    charging: bool = True
    unmetered: bool = True
    min_battery_ratio: float = 0.3
    min_examples: int = 1

    def __post_init__(self) -> None:
        if not 0.0 <= self.min_battery_ratio <= 1.0:
            raise ValueError(f"min_battery_ratio must be 0 to 1, got {self.min_battery_ratio}")
        if self.min_examples < 1:
            raise ValueError(f"min_examples must be 1 or more, got {self.min_examples}")


def judge(
    rule: Rule,
    *,
    idle: Bools,
    charging: Bools,
    unmetered: Bools,
    battery_ratio: npt.NDArray[np.float64],
    fits_memory: Bools,
    has_examples: Bools,
    cool: Bools | None = None,
) -> npt.NDArray[np.int8]:
    """The first failing reason of each device, ``int8 [n]``; all arguments are ``[n]``.

    ``has_examples``: it holds ``rule.min_examples`` or more. Without ``cool`` all are.
    """
    always = np.zeros(len(idle), dtype=np.bool_)
    failing = [
        ~has_examples,
        ~fits_memory,
        ~idle if rule.idle else always,
        ~charging if rule.charging else always,
        ~unmetered if rule.unmetered else always,
        battery_ratio < rule.min_battery_ratio,
        always if cool is None else ~cool,
    ]
    reasons = [np.int8(reason) for reason in Reason if reason is not Reason.ELIGIBLE]
    return np.select(failing, reasons, default=np.int8(Reason.ELIGIBLE)).astype(np.int8)
