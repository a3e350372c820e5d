"""How a charger fills a battery: constant power up to a knee, then a taper, in closed form.

Rules:

1. Of what a charger gives, ``CHARGING_EFFICIENCY_RATIO`` arrives; the rest is heat in the phone. The phone's own draw
   is fed first; what remains charges, and where nothing remains the battery gives the difference.
2. Up to ``KNEE_RATIO`` of its capacity a battery takes whatever comes. Above, it takes at most
   ``full * (FLOOR_RATIO + (1 - FLOOR_RATIO) * missing / missing at the knee)``, ``full`` being what its charger can
   give. So the missing energy falls exponentially, and is gone after a finite time.
3. ``Phone.charger_watts`` is a mean over a charge. Full power is ``FULL_POWER_RATIO`` of it, so that filling an empty
   battery takes as long as at the mean.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["CHARGING_EFFICIENCY_RATIO", "FLOOR_RATIO", "FULL_POWER_RATIO", "KNEE_RATIO", "Taper", "accepted_watts"]

Floats = npt.NDArray[np.float64]

# Assumed: the share of the charger's power that ends in a lithium cell, after conversion and heat.
CHARGING_EFFICIENCY_RATIO = 0.85
# Assumed: where constant current gives way to constant voltage, and the share of full power at which a charger ends.
KNEE_RATIO, FLOOR_RATIO = 0.8, 0.05
# Seconds from empty to full over capacity / full power: the way to the knee, then the integral of rule 2.
FULL_POWER_RATIO = KNEE_RATIO + (1.0 - KNEE_RATIO) * math.log(1.0 / FLOOR_RATIO) / (1.0 - FLOOR_RATIO)


def accepted_watts(level_joules: Floats, *, full_watts: Floats, capacity_joules: Floats) -> Floats:
    """What batteries at these levels take at most, ``[n]``; 0 when full.

    Args:
        level_joules: ``[n]``.
        full_watts: what arrives of the charger at full power, ``[n]``.
        capacity_joules: ``[n]``.
    """
    missing = (capacity_joules - level_joules) / ((1.0 - KNEE_RATIO) * capacity_joules)
    share = np.where(missing > 0.0, FLOOR_RATIO + (1.0 - FLOOR_RATIO) * np.minimum(missing, 1.0), 0.0)
    return share * full_watts


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Taper:
    """A while of charging that ends above the knee, ``[n]``: constant watts, then watts that fall, then none.

    Attributes:
        level_joules: in the end.
        constant_s: how long ``net_watts`` went in.
        falling_s: how long less and less went in, ``falling_watts * exp(-falling_per_s * t)``.
        full_s: how long the battery was full.
    """

    level_joules: Floats
    constant_s: Floats
    falling_s: Floats
    full_s: Floats
    falling_watts: Floats
    falling_per_s: Floats

    @classmethod
    def of(
        cls, level_joules: Floats, *, net_watts: Floats, full_watts: Floats, capacity_joules: Floats, seconds: Floats
    ) -> "Taper":
        """Charge batteries.

        Args:
            level_joules: at the start, 0 to full, ``[n]``.
            net_watts: what arrives and the phone does not draw, above 0, ``[n]``.
            full_watts: what arrives of the charger at full power, ``net_watts`` or more, ``[n]``.
            capacity_joules: ``[n]``.
            seconds: ``[n]``.
        """
        of_taper = (1.0 - KNEE_RATIO) * capacity_joules
        # Watts taken are rate * (missing + beyond): they would be 0 ``beyond`` the capacity.
        beyond = of_taper * FLOOR_RATIO / (1.0 - FLOOR_RATIO)
        rate = (1.0 - FLOOR_RATIO) * full_watts / of_taper
        # The taper binds where it takes less than comes; a trickle under the floor goes in whole.
        bound = np.minimum(np.maximum(net_watts / rate - beyond, 0.0), of_taper)
        missing = capacity_joules - level_joules
        constant_s = np.minimum(np.maximum((missing - bound) / net_watts, 0.0), seconds)
        missing = np.maximum(missing - net_watts * constant_s, 0.0)
        rest_s = seconds - constant_s
        to_full_s = np.log1p(missing / beyond) / rate
        falling_s = np.minimum(rest_s, to_full_s)
        left = np.where(rest_s >= to_full_s, 0.0, (missing + beyond) * np.exp(-rate * falling_s) - beyond)
        left = np.where(rest_s > 0.0, np.maximum(left, 0.0), missing)
        return cls(
            level_joules=capacity_joules - left,
            constant_s=constant_s,
            falling_s=falling_s,
            full_s=rest_s - falling_s,
            falling_watts=rate * (missing + beyond),
            falling_per_s=rate,
        )
