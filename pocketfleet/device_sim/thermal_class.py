"""How a phone's case sheds heat, by the size of its case.

Rules:

1. A phone is *small*, *mid* or *large* by the surface of its case (``catalog/phones.csv`` has the millimetres).
2. Skin temperature above the room is watts times ``skin_kelvin_per_watt`` in the long run, and gets there with
   ``time_constant_s``: one number each for a whole case, where a real phone is hotter over its chip.
3. ``sustained_watts`` is what the case sheds at the skin temperature at which a phone begins to hold back, in a room of
   25 degrees: ``(SKIN_LIMIT_CELSIUS - ROOM_CELSIUS) / skin_kelvin_per_watt``. It is all of the phone's power, not
   the CPU's alone.
"""

import functools
from dataclasses import dataclass

from pocketfleet.device_sim.catalog import packaged_rows

__all__ = ["ROOM_CELSIUS", "SKIN_LIMIT_CELSIUS", "ThermalClass", "load_thermal_classes"]

# The second of six steps at which a Pixel 8 throttles its CPU by the temperature of its skin, where the CPU's budget
# falls to 1.2 W: LineageOS/android_device_google_shusky@0325752 thermal_info_config_shiba.json, VIRTUAL-SKIN-CPU.
SKIN_LIMIT_CELSIUS = 43.0
# Assumed: a heated room.
ROOM_CELSIUS = 25.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ThermalClass:
    """One class of cases; the rules are the module's."""

    name: str
    skin_kelvin_per_watt: float
    time_constant_s: float

    @property
    def sustained_watts(self) -> float:
        """What the case sheds at the limit of its skin."""
        return (SKIN_LIMIT_CELSIUS - ROOM_CELSIUS) / self.skin_kelvin_per_watt


@functools.cache
def load_thermal_classes() -> tuple[ThermalClass, ...]:
    """The classes of ``catalog/thermal_classes.csv``, from the smallest case."""
    return tuple(
        ThermalClass(
            name=row.text("name"),
            skin_kelvin_per_watt=row.number("skin_kelvin_per_watt"),
            time_constant_s=row.number("time_constant_s"),
        )
        for row in packaged_rows("thermal_classes.csv")
    )
