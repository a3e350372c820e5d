"""Which links a fleet has, and how good they are where and when: one network everywhere, or a network plan.

Rules:

1. ``fleet.network`` names a packaged scenario: every device has that one link, the same at all places and hours. Or it
   names a *plan*, packaged in ``catalog/network_plans.csv`` or a user's CSV: every device has a Wi-Fi link and a
   cellular one, each drawn once, by the plan's shares, from its scenarios.
2. Under a plan a device uses its Wi-Fi link where its day says Wi-Fi, and its cellular link elsewhere.
3. A plan's ``<link>.<place>.rate_ratio`` and ``.losses_ratio`` multiply the link's rates and its rate of losses at a
   place. ``<link>.hour_rate_ratio.<hour>`` multiplies the rates by the device's local hour: straight between the hours
   given, around the clock. What is left out is 1.
4. A plan may hold scenarios of its own: ``network.<name>.<parameter>`` with the parameters of ``catalog/networks.csv``.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pocketfleet.device_sim.catalog import Row, file_rows, packaged_rows
from pocketfleet.device_sim.network import Scenario, load_scenario, read_scenario, scenario_names
from pocketfleet.device_sim.place import Place
from pocketfleet.errors import InputError

__all__ = ["LINKS", "NetworkPlan", "load_network_plan", "plan_names"]

Floats = npt.NDArray[np.float64]
Int8s = npt.NDArray[np.int8]

LINKS = ("wifi", "cellular")
_PLACES = tuple(place.name.lower() for place in Place)
_HOURS, _S_PER_HOUR = 24, 3600.0
_RATIOS = ("rate_ratio", "losses_ratio")
_PARAMETERS = (
    "wifi.share.<network>, cellular.share.<network>, <link>.<home, commute or work>.<rate_ratio or losses_ratio>, "
    "<link>.hour_rate_ratio.<00 to 23> and network.<name>.<parameter>"
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NetworkPlan:
    """Links by share, and their ratios by place and hour; ``[links]`` is in the order of ``LINKS``.

    Attributes:
        wifi: the share of each scenario among Wi-Fi links; of a fleet with one network, that one, whatever its radio.
        cellular: likewise; empty of a fleet with one network.
        rate_ratio: ``[links, places]``.
        losses_ratio: ``[links, places]``.
        hour_rate_ratio: at each full hour, ``[links, 24]``.
    """

    name: str
    wifi: Mapping[Scenario, float]
    cellular: Mapping[Scenario, float] = field(default_factory=dict)
    rate_ratio: Floats = field(default_factory=lambda: np.ones((len(LINKS), len(_PLACES))))
    losses_ratio: Floats = field(default_factory=lambda: np.ones((len(LINKS), len(_PLACES))))
    hour_rate_ratio: Floats = field(default_factory=lambda: np.ones((len(LINKS), _HOURS)))

    @property
    def one_network(self) -> bool:
        """Whether devices have one link, the same everywhere."""
        return not self.cellular

    def rate_ratio_at(self, link: Int8s, place: Int8s, local_s: Floats) -> Floats:
        """What multiplies rates; ``[n]`` as all arguments, ``local_s`` since a midnight of the device's clock."""
        hour = (local_s / _S_PER_HOUR) % _HOURS
        before = hour.astype(np.int64) % _HOURS
        share = hour - before
        low, high = self.hour_rate_ratio[link, before], self.hour_rate_ratio[link, (before + 1) % _HOURS]
        ratio: Floats = self.rate_ratio[link, place] * (low + share * (high - low))
        return ratio


def plan_names() -> tuple[str, ...]:
    """The packaged plans."""
    return tuple(dict.fromkeys(row.text("plan") for row in packaged_rows("network_plans.csv")))


def load_network_plan(network: str) -> NetworkPlan:
    """What ``fleet.network`` names: a packaged scenario, a packaged plan, or the path of a plan's CSV.

    Raises:
        InputError: it is none of these; or the file or a row of it is wrong.
    """
    if network in scenario_names():
        return NetworkPlan(name=network, wifi={load_scenario(network): 1.0})
    if network in plan_names():
        rows = [row for row in packaged_rows("network_plans.csv") if row.text("plan") == network]
        return _read(network, rows)
    if Path(network).suffix.lower() != ".csv":
        raise InputError(
            f"fleet.network must be one of {', '.join((*scenario_names(), *plan_names()))} or the path of a CSV file "
            f"of a network plan, got {network!r}"
        )
    return _read(network, file_rows(Path(network), columns=("parameter", "value")))


def _read(name: str, rows: Iterable[Row]) -> NetworkPlan:
    by_parameter = _by_parameter(rows)
    own = _own_networks(by_parameter)
    wifi: dict[Scenario, float] = {}
    cellular: dict[Scenario, float] = {}
    plan = NetworkPlan(name=name, wifi=wifi, cellular=cellular)
    hours: dict[str, dict[int, float]] = {link: {} for link in LINKS}
    for parameter, row in by_parameter.items():
        match parameter.split(".", 2):
            case [link, "share", network] if link in LINKS:
                scenario = own.get(network) or _scenario(row, network)
                _check_radio(row, link, scenario)
                (wifi if link == "wifi" else cellular)[scenario] = row.number("value")
            case [link, place, ratio] if link in LINKS and place in _PLACES and ratio in _RATIOS:
                column = getattr(plan, ratio)
                column[LINKS.index(link), _PLACES.index(place)] = row.number("value", positive=ratio == "rate_ratio")
            case [link, "hour_rate_ratio", hour] if link in LINKS and hour.isdecimal() and int(hour) < _HOURS:
                hours[link][int(hour)] = row.number("value")
            case ["network", _, _]:
                pass
            case _:
                raise InputError(f"{row.where}: unknown parameter {parameter}; a network plan takes {_PARAMETERS}")
    for number, (link, shares) in enumerate(zip(LINKS, (wifi, cellular), strict=True)):
        if not shares:
            raise InputError(f"the network plan {name!r} lacks a row {link}.share.<network>: add one or more")
        plan.hour_rate_ratio[number] = _around_the_clock(hours[link])
    return plan


def _by_parameter(rows: Iterable[Row]) -> dict[str, Row]:
    by_parameter: dict[str, Row] = {}
    for row in rows:
        parameter = row.text("parameter")
        if parameter in by_parameter:
            raise InputError(f"{row.where}: {parameter} is there twice; keep one row")
        by_parameter[parameter] = row
    return by_parameter


def _own_networks(by_parameter: Mapping[str, Row]) -> dict[str, Scenario]:
    """The scenarios that a plan brings, by name."""
    own: dict[str, dict[str, Row]] = {}
    for parameter, row in by_parameter.items():
        first, *rest = parameter.split(".", 2)
        if first == "network" and len(rest) == 2:
            own.setdefault(rest[0], {})[rest[1]] = row
    return {name: read_scenario(name, rows) for name, rows in own.items()}


def _scenario(row: Row, network: str) -> Scenario:
    try:
        return load_scenario(network)
    except InputError as exc:
        raise InputError(f"{row.where}: {exc}; or describe it by rows network.{network}.<parameter>") from exc


def _check_radio(row: Row, link: str, scenario: Scenario) -> None:
    if scenario.cellular != (link == "cellular"):
        kind = "cellular" if scenario.cellular else "Wi-Fi"
        raise InputError(f"{row.where}: {scenario.name} is a {kind} network, and a {link} link is not: name another")


def _around_the_clock(known: Mapping[int, float]) -> Floats:
    """Ratios at each full hour, straight between the known ones; 1 without any."""
    if not known:
        return np.ones(_HOURS)
    return np.interp(np.arange(_HOURS), list(known), list(known.values()), period=_HOURS)
