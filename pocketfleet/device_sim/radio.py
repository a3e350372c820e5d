"""What a radio costs to wake up, to keep awake and to move bytes with, by its technology: ``catalog/radios.csv``.

Rules:

1. A radio that sleeps takes ``wake_s`` to wake up, at ``wake_watts``. It sleeps ``tail_s`` after its last byte; until
   then it draws ``tail_watts``, the *tail*.
2. While a transfer goes on the radio draws the phone's own watts, and so many joules a byte on top.
3. Joules of a transfer are those of waking up, being on, its bytes and the tail after it, all above the idle phone.
"""

import functools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pocketfleet.device_sim.catalog import packaged_rows

__all__ = ["WIFI", "Radios", "load_radios", "radio_names", "tail_joules", "transfer_joules"]

Floats = npt.NDArray[np.float64]
Int8s = npt.NDArray[np.int8]

# The first of ``radio_names``: every other is cellular.
WIFI = 0
_FIGURES = ("wake_s", "wake_watts", "tail_s", "tail_watts", "receive_joules_per_byte", "transmit_joules_per_byte")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Radios:
    """The radios' figures, ``float64 [radios]`` in the order of ``radio_names``; watts are above the idle phone."""

    wake_s: Floats
    wake_watts: Floats
    tail_s: Floats
    tail_watts: Floats
    receive_joules_per_byte: Floats
    transmit_joules_per_byte: Floats


@functools.cache
def load_radios() -> Radios:
    """The packaged radios."""
    figures: dict[str, dict[str, float]] = {}
    for row in packaged_rows("radios.csv"):
        figures.setdefault(row.text("radio"), {})[row.text("parameter")] = row.number("value", positive=False)
    return Radios(**{name: np.array([figures[radio][name] for radio in figures]) for name in _FIGURES})


@functools.cache
def radio_names() -> tuple[str, ...]:
    """The packaged radios' names, Wi-Fi first."""
    return tuple(dict.fromkeys(row.text("radio") for row in packaged_rows("radios.csv")))


def transfer_joules(
    *,
    radio: Int8s,
    spent_s: Floats,
    wake_s: Floats,
    on_watts: Floats,
    moved_bytes: Floats,
    joules_per_byte: Floats,
) -> Floats:
    """Joules of waking up, being on and moving bytes, without the tail; ``[n]`` as all arguments.

    Args:
        radio: indexes ``radio_names``.
        spent_s: seconds of the whole transfer, waking up among them.
        wake_s: seconds of waking up at its start; 0 where the radio was awake.
        on_watts: the phone's own, while it receives or sends.
        moved_bytes: over the air.
        joules_per_byte: a column of ``Radios`` at ``radio``.
    """
    waking_s = np.minimum(spent_s, wake_s)
    joules: Floats = (
        load_radios().wake_watts[radio] * waking_s + on_watts * (spent_s - waking_s) + joules_per_byte * moved_bytes
    )
    return joules


def tail_joules(radio: Int8s, until_s: Floats) -> Floats:
    """Joules of the tail after a transfer, ``[n]``; ``until_s`` later the next one begins, infinite for never."""
    radios = load_radios()
    joules: Floats = radios.tail_watts[radio] * np.minimum(radios.tail_s[radio], until_s)
    return joules
