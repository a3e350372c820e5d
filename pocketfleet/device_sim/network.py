"""Each device's link: rates up and down, latency, losses; and what a transfer over it takes.

Rules:

1. A *scenario* of ``catalog/networks.csv`` gives quantiles of the median rate of a user, down and up, and
   of the round-trip latency. A device draws one normal number per quantity and reads it off the quantiles:
   linear between the published ones, in normal scores and the logarithm of the quantity, continued beyond the
   outermost. (Two quantiles make a lognormal.) The rates' normal numbers share the scenario's correlation.
2. Within one device each transfer's rate varies: a lognormal factor of mean 1.
3. A transfer takes three round trips and then its bits at the rate. TCP's slow start is not modelled.
4. Links are lost at random, at a constant rate.
"""

import functools
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from pocketfleet.device_sim.catalog import packaged_rows
from pocketfleet.errors import InputError
from pocketfleet.training.draws import draw_key, normal, uniform

__all__ = [
    "ROUND_TRIPS",
    "Links",
    "Scenario",
    "draw_links",
    "link_lost_after_s",
    "load_scenario",
    "scenario_names",
    "transfer_rate_factor",
    "transfer_seconds",
]

Floats = npt.NDArray[np.float64]

# TCP's handshake, TLS 1.3's (RFC 8446, figure 1), and the request with its answer; a device that wakes up
# for a round has no open connection.
ROUND_TRIPS = 3
_S_PER_HOUR = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantiles:
    """Published quantiles of one quantity: probabilities and values, both rising, at least two."""

    probabilities: tuple[float, ...]
    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The quantity at a normal score of 0."""
        return float(self.at(np.zeros(1))[0])

    def at(self, score: Floats) -> Floats:
        """The quantity at standard normal scores, any shape."""
        known = np.array([NormalDist().inv_cdf(probability) for probability in self.probabilities])
        logs = np.log(self.values)
        piece = np.clip(np.searchsorted(known, score) - 1, 0, len(known) - 2)
        slope = np.diff(logs) / np.diff(known)
        value: Floats = np.exp(logs[piece] + slope[piece] * (score - known[piece]))
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """What ``catalog/networks.csv`` says of one kind of network.

    Attributes:
        rate_correlation: of the normal scores of a device's rates down and up.
        down_variation_ratio: standard deviation over mean of one device's rate between transfers.
        up_variation_ratio: the same of the uplink.
    """

    name: str
    down_bits_per_s: Quantiles
    up_bits_per_s: Quantiles
    latency_s: Quantiles
    rate_correlation: float
    down_variation_ratio: float
    up_variation_ratio: float
    link_losses_per_s: float
    metered: bool
    cellular: bool


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Links:
    """Each device's link; columns are ``[devices]``. ``latency_s`` is a round trip; ``cellular`` is not Wi-Fi."""

    down_bits_per_s: Floats
    up_bits_per_s: Floats
    latency_s: Floats
    link_losses_per_s: Floats
    down_variation_ratio: Floats
    up_variation_ratio: Floats
    metered: npt.NDArray[np.bool_]
    cellular: npt.NDArray[np.bool_]


def draw_links(scenario: str, seed: int, devices: int) -> Links:
    """Draw the links of devices ``0 .. devices - 1``; a further device changes no other's.

    Raises:
        InputError: there is no such scenario; the message lists them.
    """
    network = load_scenario(scenario)
    device = np.arange(devices)
    down_score, own_score, latency_score = normal(draw_key(seed, "network.link", device), 3).T
    rho = network.rate_correlation
    up_score = rho * down_score + np.sqrt(1.0 - rho**2) * own_score
    return Links(
        down_bits_per_s=network.down_bits_per_s.at(down_score),
        up_bits_per_s=network.up_bits_per_s.at(up_score),
        latency_s=network.latency_s.at(latency_score),
        link_losses_per_s=np.full(devices, network.link_losses_per_s),
        down_variation_ratio=np.full(devices, network.down_variation_ratio),
        up_variation_ratio=np.full(devices, network.up_variation_ratio),
        metered=np.full(devices, network.metered),
        cellular=np.full(devices, network.cellular),
    )


def transfer_seconds(*, payload_bytes: float | Floats, bits_per_s: Floats, latency_s: Floats) -> Floats:
    """Seconds of one transfer on a fresh connection, ``float64 [n]``.

    Args:
        payload_bytes: one for all or ``[n]``; 0 still costs the round trips.
        bits_per_s: ``[n]``, the rate of this transfer.
        latency_s: ``[n]``, a round trip.
    """
    seconds: Floats = ROUND_TRIPS * latency_s + np.asarray(payload_bytes) * 8.0 / bits_per_s
    return seconds


def transfer_rate_factor(
    seed: int, purpose: str, round: npt.ArrayLike, device: npt.ArrayLike, variation_ratio: float | Floats
) -> Floats:
    """How much faster than usual this transfer is: lognormal of mean 1, ``float64 [n]``.

    Args:
        seed: the experiment's seed.
        purpose: what the transfer is for, such as "download".
        round: the round or any running number of the transfer; one or ``[n]``.
        device: ``[n]``.
        variation_ratio: standard deviation of the factor (its mean is 1), such as ``Fleet.down_variation_ratio``.
    """
    spread = np.sqrt(np.log1p(np.square(variation_ratio)))
    score = normal(draw_key(seed, f"network.rate.{purpose}", round, device), 1)[..., 0]
    factor: Floats = np.exp(spread * score - spread**2 / 2.0)
    return factor


def link_lost_after_s(
    seed: int, purpose: str, round: npt.ArrayLike, device: npt.ArrayLike, losses_per_s: Floats
) -> Floats:
    """Seconds until the link is lost, exponential; infinite where ``losses_per_s`` is 0; ``float64 [n]``."""
    chance = uniform(draw_key(seed, f"network.loss.{purpose}", round, device), 1)[..., 0]
    losses_per_s = np.broadcast_to(losses_per_s, chance.shape)
    after_s: Floats = np.full(chance.shape, np.inf)
    np.divide(-np.log1p(-chance), losses_per_s, out=after_s, where=losses_per_s > 0.0)
    return after_s


@functools.cache
def _parameters() -> dict[str, dict[str, float]]:
    """``{scenario: {parameter: value}}`` of the packaged table."""
    scenarios: dict[str, dict[str, float]] = {}
    for row in packaged_rows("networks.csv"):
        parameters = scenarios.setdefault(row.text("scenario"), {})
        parameters[row.text("parameter")] = row.number("value", positive=False)
    return scenarios


def scenario_names() -> tuple[str, ...]:
    """The packaged scenarios."""
    return tuple(_parameters())


def load_scenario(name: str) -> Scenario:
    """The scenario of that name.

    Raises:
        InputError: there is none; the message lists them.
    """
    scenarios = _parameters()
    if name not in scenarios:
        raise InputError(f"fleet.network must be one of {', '.join(scenarios)}, got {name!r}")
    parameters = scenarios[name]
    return Scenario(
        name=name,
        down_bits_per_s=_quantiles(parameters, "down_bits_per_s"),
        up_bits_per_s=_quantiles(parameters, "up_bits_per_s"),
        latency_s=_quantiles(parameters, "latency_s"),
        rate_correlation=parameters["rate_correlation"],
        down_variation_ratio=parameters["down_variation_ratio"],
        up_variation_ratio=parameters["up_variation_ratio"],
        link_losses_per_s=parameters["link_losses_per_hour"] / _S_PER_HOUR,
        metered=parameters["metered"] == 1.0,
        cellular=parameters["cellular"] == 1.0,
    )


def _quantiles(parameters: dict[str, float], quantity: str) -> Quantiles:
    """Gather ``quantity.p05``, ``quantity.p50``, ...: the number after the ``p`` is a percentage."""
    prefix = f"{quantity}.p"
    points = sorted(
        (int(name.removeprefix(prefix)) / 100.0, value) for name, value in parameters.items() if name.startswith(prefix)
    )
    return Quantiles(probabilities=tuple(p for p, _ in points), values=tuple(value for _, value in points))
