"""The link that a device uses at a time, and how good it is there and then.

Rules:

1. With one network, that is the device's one link, as drawn. Under a network plan it is the Wi-Fi link where the day
   says Wi-Fi, else the cellular one; place and local hour multiply its rates, the place its losses.
2. Bytes are metered if the link is, and wherever the day says no Wi-Fi: its Wi-Fi is the unmetered one.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pocketfleet.device_sim.availability import Availability
from pocketfleet.device_sim.fleet import Fleet

__all__ = ["Connections", "connect"]

Floats = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Connections:
    """The links in use, columns ``[n]``; names as of ``network.Links`` and ``fleet.Fleet``."""

    down_bits_per_s: Floats
    up_bits_per_s: Floats
    latency_s: Floats
    link_losses_per_s: Floats
    down_variation_ratio: Floats
    up_variation_ratio: Floats
    receive_watts: Floats
    transmit_watts: Floats
    metered: npt.NDArray[np.bool_]
    radio: npt.NDArray[np.int8]


def connect(fleet: Fleet, day: Availability, device: Int64s, at_s: Floats) -> Connections:
    """What each device's link is at a time.

    Args:
        fleet: whose links.
        day: the devices' days.
        device: ``[n]``.
        at_s: virtual times, ``[n]``.
    """
    wifi = day.state(device, at_s).wifi
    columns = {name: getattr(fleet, name)[device] for name in Connections.__slots__}
    if fleet.cellular is not None:
        off = np.flatnonzero(~wifi)
        for name, column in columns.items():
            column[off] = getattr(fleet.cellular, name)[device[off]]
        link, place = (~wifi).astype(np.int8), day.place(device, at_s)
        ratio = fleet.network.rate_ratio_at(link, place, day.local_s(device, at_s))
        columns["down_bits_per_s"] *= ratio
        columns["up_bits_per_s"] *= ratio
        columns["link_losses_per_s"] *= fleet.network.losses_ratio[link, place]
    columns["metered"] |= ~wifi
    return Connections(**columns)
