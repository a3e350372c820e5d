"""The links that devices draw: rates up and down, latency, losses, of a sourced kind of network.

Rules:

1. A *scenario* gives quantiles of the median rate of a user, down and up, and of the round-trip latency. A device draws
   one normal number per quantity and reads it off the quantiles: linear between the published ones, in normal scores
   and the logarithm of the quantity, continued beyond the outermost. (Two quantiles make a lognormal.) The rates'
   normal numbers share the scenario's correlation.
2. Packaged scenarios are in ``catalog/networks.csv``. Which a device uses when, says ``network_plan``; what a transfer
   over it takes, ``transfer``.
"""

import functools
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from pocketfleet.device_sim.catalog import Row, packaged_rows
from pocketfleet.device_sim.radio import WIFI, radio_names
from pocketfleet.errors import InputError
from pocketfleet.training.draws import draw_key, normal, uniform

__all__ = [
    "Links",
    "PoweredLinks",
    "Quantiles",
    "Scenario",
    "draw_links",
    "load_scenario",
    "read_scenario",
    "scenario_names",
]

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

_S_PER_HOUR = 3600.0
_QUANTITIES = ("down_bits_per_s", "up_bits_per_s", "latency_s")
_NUMBERS = ("rate_correlation", "down_variation_ratio", "up_variation_ratio", "link_losses_per_hour")


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
    """One kind of network.

    Attributes:
        rate_correlation: of the normal scores of a device's rates down and up.
        down_variation_ratio: standard deviation over mean of one device's rate between transfers.
        up_variation_ratio: the same of the uplink.
        radio: indexes ``radio.radio_names``.
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
    radio: int

    @property
    def cellular(self) -> bool:
        """Whether it is no Wi-Fi."""
        return self.radio != WIFI


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Links:
    """Each device's link; columns are ``[devices]``. ``latency_s`` is a round trip; ``radio`` as a scenario's."""

    down_bits_per_s: Floats
    up_bits_per_s: Floats
    latency_s: Floats
    link_losses_per_s: Floats
    down_variation_ratio: Floats
    up_variation_ratio: Floats
    metered: Bools
    radio: npt.NDArray[np.int8]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PoweredLinks(Links):
    """Links with the watts, above idle, of the radios that serve them; of all devices or of some."""

    receive_watts: Floats
    transmit_watts: Floats


def draw_links(shares: Mapping[Scenario, float], *, seed: int, devices: int, purpose: str = "network.link") -> Links:
    """Draw the links of devices ``0 .. devices - 1``; a further device changes no other's.

    Args:
        shares: which share of devices draws from which scenario; need not add up to 1.
        seed: the experiment's.
        devices: how many.
        purpose: keys the draws; a device's links of two purposes are independent.
    """
    device = np.arange(devices)
    scores = normal(draw_key(seed, purpose, device), 3).T
    chosen = _chosen(tuple(shares.values()), seed=seed, devices=devices, purpose=purpose)
    links = Links(
        **{name: np.empty(devices) for name in Links.__slots__ if name not in {"metered", "radio"}},
        metered=np.empty(devices, dtype=np.bool_),
        radio=np.empty(devices, dtype=np.int8),
    )
    for number, scenario in enumerate(shares):
        _fill(links, scenario, np.flatnonzero(chosen == number) if len(shares) > 1 else slice(None), scores)
    return links


def _chosen(shares: tuple[float, ...], *, seed: int, devices: int, purpose: str) -> npt.NDArray[np.int64]:
    """Which scenario each device draws from, by its place among the shares."""
    if len(shares) == 1:
        return np.zeros(devices, dtype=np.int64)
    reached = np.cumsum(shares)
    chance = uniform(draw_key(seed, f"{purpose}.scenario", np.arange(devices)), 1)[:, 0]
    # The last one takes what rounding leaves of the sum.
    number: npt.NDArray[np.int64] = np.searchsorted(reached, chance * reached[-1], side="right")
    return np.where(number < len(shares), number, len(shares) - 1)


def _fill(links: Links, scenario: Scenario, rows: npt.NDArray[np.int64] | slice, scores: Floats) -> None:
    """Write the links of some devices, read off a scenario's quantiles at their normal scores."""
    down_score, own_score, latency_score = scores[:, rows]
    rho = scenario.rate_correlation
    links.down_bits_per_s[rows] = scenario.down_bits_per_s.at(down_score)
    links.up_bits_per_s[rows] = scenario.up_bits_per_s.at(rho * down_score + np.sqrt(1.0 - rho**2) * own_score)
    links.latency_s[rows] = scenario.latency_s.at(latency_score)
    for name in ("link_losses_per_s", "down_variation_ratio", "up_variation_ratio", "metered", "radio"):
        getattr(links, name)[rows] = getattr(scenario, name)


@functools.cache
def _packaged() -> dict[str, dict[str, Row]]:
    """``{scenario: {parameter: row}}`` of the packaged table."""
    scenarios: dict[str, dict[str, Row]] = {}
    for row in packaged_rows("networks.csv"):
        scenarios.setdefault(row.text("scenario"), {})[row.text("parameter")] = row
    return scenarios


def scenario_names() -> tuple[str, ...]:
    """The packaged scenarios."""
    return tuple(_packaged())


@functools.cache
def load_scenario(name: str) -> Scenario:
    """The packaged scenario of that name.

    Raises:
        InputError: there is none; the message lists them.
    """
    scenarios = _packaged()
    if name not in scenarios:
        raise InputError(f"a network must be one of {', '.join(scenarios)}, got {name!r}")
    return read_scenario(name, scenarios[name])


def read_scenario(name: str, rows: Mapping[str, Row]) -> Scenario:
    """A scenario of its rows by parameter, with the parameters of ``catalog/networks.csv`` in the column ``value``.

    Raises:
        InputError: a parameter is missing, unknown or wrong; the message says which.
    """
    known = {*_NUMBERS, "metered", "radio"}
    unknown = [each for each in rows if each not in known and each.partition(".p")[0] not in _QUANTITIES]
    if unknown:
        allowed = ", ".join([*(f"{quantity}.p50" for quantity in _QUANTITIES), *_NUMBERS, "metered", "radio"])
        raise InputError(f"{rows[unknown[0]].where}: unknown parameter {unknown[0]} of a network; it takes {allowed}")
    missing = [each for each in (*_NUMBERS, "metered", "radio") if each not in rows]
    if missing:
        raise InputError(f"the network {name!r} lacks {', '.join(missing)}: add a row for each")
    numbers = {each: rows[each].number("value", positive=False) for each in _NUMBERS}
    if numbers["rate_correlation"] > 1.0:
        raise InputError(f"{rows['rate_correlation'].where}: rate_correlation must be 0 to 1")
    return Scenario(
        name=name,
        down_bits_per_s=_quantiles(name, rows, "down_bits_per_s"),
        up_bits_per_s=_quantiles(name, rows, "up_bits_per_s"),
        latency_s=_quantiles(name, rows, "latency_s"),
        rate_correlation=numbers["rate_correlation"],
        down_variation_ratio=numbers["down_variation_ratio"],
        up_variation_ratio=numbers["up_variation_ratio"],
        link_losses_per_s=numbers["link_losses_per_hour"] / _S_PER_HOUR,
        metered=rows["metered"].choice("value", ("0", "1")) == "1",
        radio=radio_names().index(rows["radio"].choice("value", radio_names())),
    )


def _quantiles(name: str, rows: Mapping[str, Row], quantity: str) -> Quantiles:
    """Gather ``quantity.p05``, ``quantity.p50``, ...: the number after the ``p`` is a percentage."""
    prefix = f"{quantity}.p"
    points = []
    for parameter, row in rows.items():
        if parameter.startswith(prefix):
            percent = parameter.removeprefix(prefix)
            if not (percent.isdecimal() and 0 < int(percent) < 100):
                raise InputError(f"{row.where}: {parameter} must end in .p01 to .p99, a percentage")
            points.append((int(percent) / 100.0, row.number("value")))
    points.sort()
    values = [value for _, value in points]
    if len(points) < 2 or any(high <= low for low, high in itertools.pairwise(values)):
        raise InputError(f"the network {name!r} needs two or more quantiles of {quantity}, rising, got {values}")
    return Quantiles(probabilities=tuple(p for p, _ in points), values=tuple(values))
