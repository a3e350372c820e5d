"""How one transfer of one device will go, as rates and losses that a real connection can be held to.

It is what ``transfer.carry_transfers`` sums up to seconds, from the same draws: of the same device, purpose and running
number the sums are equal.
"""

import math
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np

from pocketfleet.device_sim.fleet import Fleet
from pocketfleet.device_sim.network import PoweredLinks
from pocketfleet.device_sim.radio import load_radios
from pocketfleet.device_sim.transfer import (
    ROUND_TRIPS,
    fatal_loss_after_s,
    survived_losses,
    transfer_rate_factor,
)

__all__ = ["Cut", "LinkPlan"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """A loss of the link after so many bytes of a transfer, and for how long it stays away."""

    after_bytes: float
    outage_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkPlan:
    """One transfer over one link, in the phone's seconds.

    Attributes:
        down_bits_per_s, up_bits_per_s: while bits move.
        opens_s: before the first byte: waking up, and the round trips of a new connection and its first request.
        reopens_s: the same after a loss.
        latency_s: the last of these round trips, that of the request and its answer.
        cuts: in the order of their bytes.
    """

    down_bits_per_s: float
    up_bits_per_s: float
    opens_s: float
    reopens_s: float
    latency_s: float
    cuts: tuple[Cut, ...] = ()

    @classmethod
    def of_request(cls, link: PoweredLinks) -> Self:
        """A small request and its answer, such as a check-in, over a link ``[1]`` at its usual rate: one round trip.

        The connection is the one that the work which follows uses, and its opening is counted there.
        """
        latency_s = float(link.latency_s[0])
        return cls(
            down_bits_per_s=float(link.down_bits_per_s[0]),
            up_bits_per_s=float(link.up_bits_per_s[0]),
            opens_s=latency_s,
            reopens_s=latency_s,
            latency_s=latency_s,
        )

    @classmethod
    def drawn(
        cls,
        fleet: Fleet,
        link: PoweredLinks,
        purpose: Literal["download", "upload"],
        *,
        seed: int,
        device: int,
        number: int,
        payload_bytes: float,
        asleep: bool,
    ) -> Self:
        """Draw a transfer.

        Args:
            fleet: the device's.
            link: that it uses, ``[1]``.
            purpose: as the simulator names it.
            seed: the experiment's.
            device: dense index.
            number: a running number of the device's attempts.
            payload_bytes: to move.
            asleep: whether the radio sleeps at the start.
        """
        devices, numbers = np.array([device]), np.array([number])
        variation = link.down_variation_ratio if purpose == "download" else link.up_variation_ratio
        factor = float(transfer_rate_factor(seed, purpose, numbers, devices, variation)[0])
        down, up = float(link.down_bits_per_s[0]), float(link.up_bits_per_s[0])
        down, up = (down * factor, up) if purpose == "download" else (down, up * factor)
        rate = down if purpose == "download" else up
        moving_s = payload_bytes * 8.0 / rate
        fatal_s = float(
            fatal_loss_after_s(seed, purpose, numbers, devices, link.link_losses_per_s, outage=fleet.outage)[0]
        )
        losses, outages_s = survived_losses(
            seed,
            purpose,
            numbers,
            devices,
            losses_per_s=link.link_losses_per_s,
            moving_s=np.array([min(moving_s, fatal_s)]),
            outage=fleet.outage,
        )
        wake_s = float(load_radios().wake_s[link.radio][0])
        reopens_s = wake_s + ROUND_TRIPS * float(link.latency_s[0])
        # Where in the transfer its losses come is not drawn, nor how they share their outages: evenly.
        count, until_bytes = int(losses[0]), min(moving_s, fatal_s) * rate / 8.0
        cuts = [
            Cut(after_bytes=until_bytes * (which + 1) / (count + 1), outage_s=float(outages_s[0]) / count)
            for which in range(count)
        ]
        if fatal_s < moving_s:
            cuts.append(Cut(after_bytes=until_bytes, outage_s=math.inf))
        return cls(
            down_bits_per_s=down,
            up_bits_per_s=up,
            opens_s=reopens_s if asleep else reopens_s - wake_s,
            reopens_s=reopens_s,
            latency_s=float(link.latency_s[0]),
            cuts=tuple(cuts),
        )
