"""What a transfer takes: waking up, round trips, bits, and outages of its link that it survives or does not.

Rules:

1. A transfer wakes the radio up if it sleeps, takes three round trips, and then its bits at the rate. TCP's slow start
   is not modelled. Within one device each transfer's rate varies: a lognormal factor of mean 1.
2. While bits move, the link is lost at a constant rate. A loss begins an outage, exponential in length. After it the
   device wakes up its radio, takes three round trips and goes on from the byte where it was (an HTTP range request).
3. An outage longer than the *limit* ends the transfer; the device gives up when the limit is over.
4. In closed form, with losses at rate ``r``, outages of mean ``m`` and a limit ``L``: a loss is fatal with chance
   ``p = exp(-L / m)``. Fatal losses and survived ones are independent Poisson processes of rates ``r p`` and
   ``r (1 - p)`` (thinning). The fatal one comes after an exponential time of moving bits; survived ones are counted
   over the bits that move before it, their outages drawn from the exponential below ``L``.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import pdtr, pdtrik

from pocketfleet.errors import InputError
from pocketfleet.training.draws import draw_key, normal, uniform

__all__ = [
    "ROUND_TRIPS",
    "Outage",
    "Transfers",
    "carry_transfers",
    "fatal_loss_after_s",
    "survived_losses",
    "transfer_rate_factor",
    "transfer_seconds",
]

Floats = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]

# TCP's handshake, TLS 1.3's (RFC 8446, figure 1), and the request with its answer; a device that wakes up
# for a round has no open connection.
ROUND_TRIPS = 3
# Outages of one transfer that are drawn one by one; any further ones last their mean.
_MOST_DRAWN = 32
# A transfer whose link is lost at its very first bit has moved this share of its bits.
_LEAST_RATIO = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    """How long lost links stay away, and how long a device waits.

    Attributes:
        mean_s: of an outage. Assumed: 20 s, a tunnel or a lift, and finding a network again.
        limit_s: longest outage that a transfer survives; 0: none. Assumed: 60 s; by then a phone's job scheduler has
            seen the network go, which the job requires.
    """

    mean_s: float = 20.0
    limit_s: float = 60.0

    def __post_init__(self) -> None:
        if not (self.mean_s > 0.0 and np.isfinite(self.mean_s)):
            raise InputError(f"fleet.outage_mean_s must be more than 0 and finite, got {self.mean_s}")
        if not (self.limit_s >= 0.0 and np.isfinite(self.limit_s)):
            raise InputError(f"fleet.outage_limit_s must be 0 or more and finite, got {self.limit_s}")

    @property
    def fatal_ratio(self) -> float:
        """The chance that an outage is longer than the limit."""
        return math.exp(-self.limit_s / self.mean_s)

    @property
    def survived_mean_s(self) -> float:
        """The mean of outages within the limit; 0 if there are none."""
        # Far below the mean, outages within the limit are as good as uniform, and the difference below cancels.
        if self.limit_s < 1e-6 * self.mean_s:
            return self.limit_s / 2
        survived = -math.expm1(-self.limit_s / self.mean_s)
        return self.mean_s - self.limit_s * self.fatal_ratio / survived

    def survived_s(self, chance: Floats) -> Floats:
        """Outages within the limit at uniform numbers in [0, 1), any shape."""
        outage_s: Floats = -self.mean_s * np.log1p(chance * math.expm1(-self.limit_s / self.mean_s))
        return outage_s


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Transfers:
    """What transfers take, columns ``[n]``.

    Attributes:
        seconds: of the whole, outages and all. Where the link is lost for good, so many that the share spent by then is
            the share of bits moved.
        lost_after_s: when the device gives up, from the transfer's start; infinite where it does not.
        wake_s: of ``seconds``, those of waking up at the start.
    """

    seconds: Floats
    lost_after_s: Floats
    wake_s: Floats


def carry_transfers(
    seed: int,
    purpose: str,
    number: Int64s,
    device: Int64s,
    *,
    payload_bytes: Floats,
    bits_per_s: Floats,
    latency_s: Floats,
    losses_per_s: Floats,
    wake_s: Floats,
    wakes: npt.NDArray[np.bool_],
    outage: Outage,
) -> Transfers:
    """Draw what each transfer takes; columns are ``[n]``.

    Args:
        seed: the experiment's.
        purpose: what the transfer is for, such as "download".
        number: a running number of the device's transfers.
        device: dense index.
        payload_bytes: to move.
        bits_per_s: the rate of this transfer.
        latency_s: a round trip.
        losses_per_s: of the link, while bits move.
        wake_s: to wake the radio up.
        wakes: whether the radio sleeps at the start.
        outage: how long lost links stay away.
    """
    moving_s = payload_bytes * 8.0 / bits_per_s
    fatal_s = fatal_loss_after_s(seed, purpose, number, device, losses_per_s, outage=outage)
    losses, outages_s = survived_losses(
        seed, purpose, number, device, losses_per_s=losses_per_s, moving_s=np.minimum(moving_s, fatal_s), outage=outage
    )
    awake_s = np.where(wakes, wake_s, 0.0)
    added_s = outages_s + losses * (wake_s + ROUND_TRIPS * latency_s)
    start_s = awake_s + transfer_seconds(payload_bytes=0.0, bits_per_s=bits_per_s, latency_s=latency_s)
    lost = fatal_s < moving_s
    lost_after_s = np.where(lost, start_s + np.where(lost, fatal_s, 0.0) + added_s + outage.limit_s, np.inf)
    ratio = np.divide(fatal_s, moving_s, out=np.ones_like(moving_s), where=lost)
    whole_s = np.where(lost, lost_after_s, start_s + moving_s + added_s) / np.clip(ratio, _LEAST_RATIO, 1.0)
    return Transfers(seconds=whole_s, lost_after_s=lost_after_s, wake_s=awake_s)


def transfer_seconds(*, payload_bytes: float | Floats, bits_per_s: Floats, latency_s: Floats) -> Floats:
    """Seconds of one transfer on a fresh connection of a radio that is awake, without losses; ``float64 [n]``.

    Args:
        payload_bytes: one for all or ``[n]``; 0 still costs the round trips.
        bits_per_s: ``[n]``, the rate of this transfer.
        latency_s: ``[n]``, a round trip.
    """
    seconds: Floats = ROUND_TRIPS * latency_s + np.asarray(payload_bytes) * 8.0 / bits_per_s
    return seconds


def transfer_rate_factor(
    seed: int, purpose: str, number: npt.ArrayLike, device: npt.ArrayLike, variation_ratio: float | Floats
) -> Floats:
    """How much faster than usual this transfer is: lognormal of mean 1, ``float64 [n]``.

    Args:
        seed: the experiment's seed.
        purpose: what the transfer is for, such as "download".
        number: a running number of the device's transfers; one or ``[n]``.
        device: ``[n]``.
        variation_ratio: standard deviation of the factor (its mean is 1), such as ``Fleet.down_variation_ratio``.
    """
    spread = np.sqrt(np.log1p(np.square(variation_ratio)))
    score = normal(draw_key(seed, f"network.rate.{purpose}", number, device), 1)[..., 0]
    factor: Floats = np.exp(spread * score - spread**2 / 2.0)
    return factor


def fatal_loss_after_s(
    seed: int,
    purpose: str,
    number: npt.ArrayLike,
    device: npt.ArrayLike,
    losses_per_s: Floats,
    *,
    outage: Outage,
) -> Floats:
    """Seconds of moving bits until the link is lost for longer than the limit, infinite for never; ``float64 [n]``."""
    chance = uniform(draw_key(seed, f"network.loss.{purpose}", number, device), 1)[..., 0]
    fatal_per_s = np.broadcast_to(losses_per_s * outage.fatal_ratio, chance.shape)
    after_s: Floats = np.full(chance.shape, np.inf)
    np.divide(-np.log1p(-chance), fatal_per_s, out=after_s, where=fatal_per_s > 0.0)
    return after_s


def survived_losses(
    seed: int,
    purpose: str,
    number: Int64s,
    device: Int64s,
    *,
    losses_per_s: Floats,
    moving_s: Floats,
    outage: Outage,
) -> tuple[Floats, Floats]:
    """How often links are lost within ``moving_s`` and found again, and the outages' seconds together; ``[n]`` each."""
    expected = losses_per_s * (1.0 - outage.fatal_ratio) * moving_s
    chance = uniform(draw_key(seed, f"network.survived.{purpose}", number, device), 1)[:, 0]
    losses, outages_s = np.zeros(len(device)), np.zeros(len(device))
    some = np.flatnonzero(chance >= np.exp(-expected))
    if len(some) == 0:
        return losses, outages_s
    losses[some] = _poisson_at(chance[some], expected[some])
    drawn = int(min(losses[some].max(), _MOST_DRAWN))
    key = draw_key(seed, f"network.outage.{purpose}", number[some], device[some])
    each_s = outage.survived_s(uniform(key, drawn))
    counted = np.arange(drawn) < losses[some, np.newaxis]
    beyond = np.maximum(losses[some] - drawn, 0.0)
    outages_s[some] = np.where(counted, each_s, 0.0).sum(axis=1) + beyond * outage.survived_mean_s
    return losses, outages_s


def _poisson_at(chance: Floats, mean: Floats) -> Floats:
    """The least count whose Poisson distribution function is ``chance`` or more, 1 at least; ``[n]``."""
    count = np.maximum(np.ceil(pdtrik(chance, mean)), 1.0)
    # The inverse is of a function between the counts: rounding may leave it one too high.
    lower: Floats = np.maximum(count - 1.0, 1.0)
    return np.where(pdtr(lower, mean) >= chance, lower, count)
