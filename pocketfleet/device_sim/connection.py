"""The link that a device uses at a time, and how good it is there and then.

Rules:

1. With one network, that is the device's one link, as drawn. Under a network plan it is the Wi-Fi link where the day
   says Wi-Fi, else the cellular one; place and local hour multiply its rates, the place its losses.
2. Bytes are metered if the link is, and wherever the day says no Wi-Fi: its Wi-Fi is the unmetered one.
"""

import dataclasses

import numpy as np
import numpy.typing as npt

from pocketfleet.device_sim.availability import Availability
from pocketfleet.device_sim.fleet import Fleet
from pocketfleet.device_sim.network import PoweredLinks

__all__ = ["connect"]

Floats = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]


def connect(
    fleet: Fleet, day: Availability, device: Int64s, at_s: Floats, *, wifi: npt.NDArray[np.bool_]
) -> PoweredLinks:
    """What each device's link is at a time, ``[n]``.

    Args:
        fleet: whose links.
        day: where the devices are, and what hour it is there.
        device: ``[n]``.
        at_s: virtual times, ``[n]``.
        wifi: whether their day says Wi-Fi then, ``[n]``.
    """
    columns = {field.name: getattr(fleet, field.name)[device] for field in dataclasses.fields(PoweredLinks)}
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
    return PoweredLinks(**columns)
