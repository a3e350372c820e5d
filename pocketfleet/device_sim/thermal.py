"""How warm phones' skins get: one temperature a case, of first order, in closed form.

Rules:

1. ``T' = (room + watts * kelvin_per_watt - T) / time_constant``, with the numbers of ``thermal_class.py``.
2. ``watts`` is all that becomes heat in the phone: what it draws, and what its charger loses there,
   ``1 - CHARGING_EFFICIENCY_RATIO`` of what the charger gives. What ends in the cell warms nothing.
3. Under constant watts ``T`` nears ``room + watts * kelvin_per_watt`` exponentially; watts that fall exponentially, as
   a charger's do near full, add a second exponential.
4. A charger gives no more than holds the skin at ``CHARGE_CELSIUS``, but ``LEAST_CHARGE_WATTS`` always: see
   ``thermal_policy.py``.

``battery.py`` keeps the temperatures; ``training_heat.py`` is what heat does to training.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt

from pocketfleet.device_sim.charging import CHARGING_EFFICIENCY_RATIO
from pocketfleet.device_sim.thermal_class import load_thermal_classes
from pocketfleet.device_sim.thermal_policy import CHARGE_CELSIUS, LEAST_CHARGE_WATTS

if TYPE_CHECKING:
    from pocketfleet.device_sim.fleet import Fleet

__all__ = ["Cases", "relaxed", "warmed_by_decay"]

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cases:
    """Phones' cases in one room, ``[n]``.

    Attributes:
        room_celsius: the air around all of them.
        kelvin_per_watt: how much warmer than the room a watt makes the skin in the long run.
        time_constant_s: after so long 63 % of a change are there.
    """

    room_celsius: float
    kelvin_per_watt: Floats
    time_constant_s: Floats

    @classmethod
    def of_devices(cls, fleet: "Fleet", devices: Indices, *, room_celsius: float) -> Self:
        """The cases of some of a fleet's devices, ``[n]``."""
        classes = load_thermal_classes()
        index = fleet.thermal_class[devices]
        return cls(
            room_celsius=room_celsius,
            kelvin_per_watt=np.array([each.skin_kelvin_per_watt for each in classes])[index],
            time_constant_s=np.array([each.time_constant_s for each in classes])[index],
        )

    def rows(self, chosen: npt.NDArray[np.int64] | npt.NDArray[np.bool_]) -> "Cases":
        """The same of some, by indices or a mask."""
        return Cases(
            room_celsius=self.room_celsius,
            kelvin_per_watt=self.kelvin_per_watt[chosen],
            time_constant_s=self.time_constant_s[chosen],
        )

    def settles_at_celsius(self, watts: Floats) -> Floats:
        """Where the skin ends under constant heat, ``[n]``."""
        celsius: Floats = self.room_celsius + self.kelvin_per_watt * watts
        return celsius

    def held_charge_watts(self, draw_watts: Floats) -> Floats:
        """What a charger gives at most so that the skin stays at the limit of charging, ``[n]``.

        Args:
            draw_watts: what the phone draws besides; all of it is heat.
        """
        spare_watts = (CHARGE_CELSIUS - self.room_celsius) / self.kelvin_per_watt - draw_watts
        held: Floats = np.maximum(spare_watts / (1.0 - CHARGING_EFFICIENCY_RATIO), LEAST_CHARGE_WATTS)
        return held


def relaxed(celsius: Floats, settles_at_celsius: Floats, seconds: Floats, time_constant_s: Floats) -> Floats:
    """Skin temperatures after ``seconds`` of constant heat, ``[n]``."""
    after: Floats = settles_at_celsius + (celsius - settles_at_celsius) * np.exp(-seconds / time_constant_s)
    return after


def warmed_by_decay(seconds: Floats, *, rate_per_s: Floats, time_constant_s: Floats) -> Floats:
    """Share of a settled temperature that heat which falls as ``exp(-rate_per_s * t)`` has given after ``seconds``.

    The closed form ``(exp(-rate t) - exp(-t / tau)) / (1 - rate tau)``, written so that it holds where ``rate`` is
    ``1 / tau``: ``t / tau * exp(-t / tau)`` there.
    """
    cooling, falling = seconds / time_constant_s, seconds * rate_per_s
    apart = cooling - falling
    near = np.abs(apart) < 1e-6
    # (1 - exp(-apart)) / apart is 1 - apart / 2 close to 0.
    slope = np.where(near, 1.0 - apart / 2.0, -np.expm1(-apart) / np.where(near, 1.0, apart))
    share: Floats = cooling * np.exp(-falling) * slope
    return share
