"""A fleet: a population of devices as columns, one row a device.

Rules:

1. A device is a unit of a catalogue phone. Which one, it draws from a *mix* (weights over phones), or is told.
2. Units of one phone differ a little in compute: a lognormal factor of mean 1 on the peak. Phones of one SoC
   differ up to twofold between models, and that is in the catalogue, not here.
3. Every draw is keyed by (seed, device): adding a device changes no other device's row.
4. Overrides come last, in the order given; a later one wins. Those of a link hold for both links of a device.
5. All phones train on the same number of threads; one that has fewer cores uses those it has.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pocketfleet.device_sim.compute import shared_peak_flops
from pocketfleet.device_sim.mix import load_mix
from pocketfleet.device_sim.network import Links, PoweredLinks, draw_links
from pocketfleet.device_sim.network_plan import NetworkPlan, load_network_plan
from pocketfleet.device_sim.phone import Phone, find_phone, load_catalogue
from pocketfleet.device_sim.radio import WIFI
from pocketfleet.device_sim.thermal_class import load_thermal_classes
from pocketfleet.device_sim.threads import compute_watts
from pocketfleet.device_sim.transfer import Outage
from pocketfleet.errors import InputError
from pocketfleet.training.draws import draw_key, normal, uniform

__all__ = ["DeviceOverride", "Fleet", "build_fleet"]

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

# Assumed: sustained speed differs by some percent between units of a phone (silicon, age, case). Peaks hardly do:
# 35.147 and 35.150 GFLOP/s on two models with a Helio G99 (hiroog/vfpbench@19d3b70 log/*.txt), while the same
# log has 69.8 (Pixel 8) and 37.7 (Pixel 8a) on one Tensor G3: differences between models are the catalogue's.
UNIT_SPREAD = 0.05
# Assumed: the battery at the start is uniform between these, as if the fleet were met at any hour of its day.
INITIAL_BATTERY_RATIO = (0.2, 1.0)
_S_PER_HOUR = 3600.0
_LINK_COLUMNS = frozenset(field.name for field in dataclasses.fields(PoweredLinks))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fleet:
    """The devices' columns, all ``[devices]``; ``phone`` indexes ``load_catalogue()`` of the fleet's own table, if any.

    Columns of a link are those of a device's one link, or of its Wi-Fi link where there is a cellular one beside it.

    Attributes:
        peak_flops: one-thread FP32 operations a second.
        free_memory_bytes: what a training app can hope for.
        parallel_peak_ratio: by ``phone``: the peak of the threads that train, shared evenly, over that of one.
        compute_watts: drawn above idle while training on that many threads.
        receive_watts: drawn above idle while the link's radio, Wi-Fi or the modem, receives; ``transmit_watts``
            likewise.
        thermal_class: indexes ``load_thermal_classes()``.
        latency_s: a round trip.
        link_losses_per_s: the rate at which an open link is lost.
        measured_step_s: seconds of a training step, where they are known and not to be predicted; else nan.
        down_variation_ratio: standard deviation over mean of a device's rate between transfers.
        metered: the link's bytes cost money.
        radio: of the link, indexes ``radio.radio_names``.
        network: which links there are, and their ratios by place and hour.
        cellular: the second link, if there is one.
        outage: how long lost links stay away.
    """

    seed: int
    name: tuple[str, ...]
    phone_name: tuple[str, ...]
    phone: npt.NDArray[np.int64]
    peak_flops: Floats
    measured_step_s: Floats
    parallel_peak_ratio: tuple[float, ...]
    memory_bytes_per_s: Floats
    free_memory_bytes: Floats
    battery_capacity_joules: Floats
    initial_battery_ratio: Floats
    compute_watts: Floats
    idle_watts: Floats
    screen_watts: Floats
    receive_watts: Floats
    transmit_watts: Floats
    charger_watts: Floats
    thermal_class: npt.NDArray[np.int64]
    down_bits_per_s: Floats
    up_bits_per_s: Floats
    latency_s: Floats
    link_losses_per_s: Floats
    down_variation_ratio: Floats
    up_variation_ratio: Floats
    metered: Bools
    radio: npt.NDArray[np.int8]
    has_charger: Bools
    network: NetworkPlan
    cellular: PoweredLinks | None
    outage: Outage

    def __len__(self) -> int:
        return len(self.name)

    @property
    def parallel_peak_flops(self) -> Floats:
        """FP32 operations a second of the threads that train together, ``[devices]``."""
        peak: Floats = self.peak_flops * np.array(self.parallel_peak_ratio)[self.phone]
        return peak


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceOverride:
    """What some devices have instead of what they drew; ``None`` leaves it."""

    devices: tuple[int, ...] | Literal["all"]
    peak_flops_ratio: float | None = None
    step_s: float | None = None
    free_memory_bytes: float | None = None
    down_bits_per_s: float | None = None
    up_bits_per_s: float | None = None
    latency_s: float | None = None
    link_losses_per_hour: float | None = None
    metered: bool | None = None
    has_charger: bool | None = None
    battery_ratio: float | None = None


def build_fleet(
    *,
    devices: int,
    seed: int,
    mix: str | Path = "global-2024",
    catalogue: Path | None = None,
    phones: Sequence[str] = (),
    names: Sequence[str] = (),
    network: str = "home-wifi",
    outage: Outage | None = None,
    threads: int = 1,
    overrides: Sequence[DeviceOverride] = (),
) -> Fleet:
    """Draw a fleet.

    Args:
        devices: how many, 1 or more.
        seed: the experiment's seed.
        mix: a packaged mix, or a CSV file with the columns ``phone`` and ``weight``.
        catalogue: a table of phones with the columns of ``catalog/phones.csv``, which replace or extend it.
        phones: one catalogue phone a device, instead of a mix.
        names: one name a device; ``device-0``, ``device-1``, ... without.
        network: a scenario of ``catalog/networks.csv``, a packaged network plan, or the path of a plan's CSV.
        outage: how long lost links stay away; ``Outage()`` without.
        threads: that a phone trains on, 1 or more; more than it has cores add nothing.
        overrides: applied in order.

    Raises:
        InputError: a value is not allowed, or a name unknown; the message names the key.
    """
    if devices < 1:
        raise InputError(f"fleet.devices must be 1 or more, got {devices}")
    models = load_catalogue(catalogue)
    phone = _named_phones(phones, devices, models) if phones else _drawn_phones(mix, seed, devices, models)
    plan = load_network_plan(network)
    links = draw_links(plan.wifi, seed=seed, devices=devices)
    device = np.arange(devices)
    low, high = INITIAL_BATTERY_RATIO
    fleet = Fleet(
        seed=seed,
        name=_names(names, devices),
        phone_name=tuple(models[index].name for index in phone),
        phone=phone,
        peak_flops=_column(models, phone, "peak_flops_one_thread") * _unit_factor(seed, device),
        measured_step_s=np.full(devices, np.nan),
        parallel_peak_ratio=_parallel_peak_ratio(models, threads),
        memory_bytes_per_s=_column(models, phone, "memory_bytes_per_s"),
        free_memory_bytes=_column(models, phone, "free_memory_bytes"),
        battery_capacity_joules=_column(models, phone, "battery_joules"),
        initial_battery_ratio=low + (high - low) * uniform(draw_key(seed, "fleet.battery", device), 1)[:, 0],
        compute_watts=np.array([float(compute_watts(model, threads)) for model in models])[phone],
        idle_watts=_column(models, phone, "idle_watts"),
        screen_watts=_column(models, phone, "screen_watts"),
        **_radio_watts(models, phone, links),
        charger_watts=_column(models, phone, "charger_watts"),
        thermal_class=_thermal_class(models)[phone],
        **_columns_of(links),
        has_charger=np.ones(devices, dtype=np.bool_),
        network=plan,
        cellular=_cellular_links(plan, seed, phone, models),
        outage=outage or Outage(),
    )
    for number, override in enumerate(overrides):
        _apply(fleet, override, key=f"fleet.overrides[{number}]")
    return fleet


def _column(catalogue: tuple[Phone, ...], phone: npt.NDArray[np.int64], figure: str) -> Floats:
    return np.array([getattr(model, figure) for model in catalogue], dtype=np.float64)[phone]


def _parallel_peak_ratio(catalogue: tuple[Phone, ...], threads: int) -> tuple[float, ...]:
    return tuple(shared_peak_flops(model, threads=threads) / model.peak_flops_one_thread for model in catalogue)


def _columns_of(links: Links) -> dict[str, Any]:
    return {name: getattr(links, name) for name in Links.__slots__}


def _radio_watts(catalogue: tuple[Phone, ...], phone: npt.NDArray[np.int64], links: Links) -> dict[str, Any]:
    """``receive_watts`` and ``transmit_watts`` of each device's link, Wi-Fi or the modem."""
    wifi = links.radio == WIFI
    return {
        figure: np.where(wifi, _column(catalogue, phone, figure), _column(catalogue, phone, f"modem_{figure}"))
        for figure in ("receive_watts", "transmit_watts")
    }


def _cellular_links(
    plan: NetworkPlan, seed: int, phone: npt.NDArray[np.int64], catalogue: tuple[Phone, ...]
) -> PoweredLinks | None:
    if plan.one_network:
        return None
    links = draw_links(plan.cellular, seed=seed, devices=len(phone), purpose="network.cellular")
    return PoweredLinks(**_columns_of(links), **_radio_watts(catalogue, phone, links))


def _thermal_class(catalogue: tuple[Phone, ...]) -> npt.NDArray[np.int64]:
    names = [each.name for each in load_thermal_classes()]
    return np.array([names.index(model.thermal_class) for model in catalogue], dtype=np.int64)


def _unit_factor(seed: int, device: npt.NDArray[np.int64]) -> Floats:
    score = normal(draw_key(seed, "fleet.unit", device), 1)[:, 0]
    factor: Floats = np.exp(UNIT_SPREAD * score - UNIT_SPREAD**2 / 2.0)
    return factor


def _drawn_phones(mix: str | Path, seed: int, devices: int, catalogue: tuple[Phone, ...]) -> npt.NDArray[np.int64]:
    weights = load_mix(mix, phones=catalogue)
    index = {model.name: number for number, model in enumerate(catalogue)}
    share = np.cumsum(list(weights.values()))
    chance = uniform(draw_key(seed, "fleet.phone", np.arange(devices)), 1)[:, 0]
    # The last phone takes what rounding leaves of the sum.
    drawn = np.minimum(np.searchsorted(share, chance * share[-1], side="right"), len(share) - 1)
    phone: npt.NDArray[np.int64] = np.array([index[name] for name in weights], dtype=np.int64)[drawn]
    return phone


def _named_phones(phones: Sequence[str], devices: int, catalogue: tuple[Phone, ...]) -> npt.NDArray[np.int64]:
    if len(phones) != devices:
        raise InputError(f"fleet.phones must name one phone a device ({devices}), got {len(phones)}")
    return np.array([catalogue.index(find_phone(name, catalogue)) for name in phones], dtype=np.int64)


def _names(names: Sequence[str], devices: int) -> tuple[str, ...]:
    if not names:
        return tuple(f"device-{number}" for number in range(devices))
    if len(names) != devices:
        raise InputError(f"fleet.names must hold one name a device ({devices}), got {len(names)}")
    if len(set(names)) != devices:
        twice = sorted({name for name in names if list(names).count(name) > 1})
        raise InputError(f"fleet.names must be unique, got more than once: {', '.join(twice)}")
    return tuple(names)


# field of an override: its column, the factor to the column's unit, the lowest and the highest value allowed.
_REPLACED: dict[str, tuple[str, float, float, float]] = {
    "step_s": ("measured_step_s", 1.0, 1e-9, np.inf),
    "free_memory_bytes": ("free_memory_bytes", 1.0, 0.0, np.inf),
    "down_bits_per_s": ("down_bits_per_s", 1.0, 1.0, np.inf),
    "up_bits_per_s": ("up_bits_per_s", 1.0, 1.0, np.inf),
    "latency_s": ("latency_s", 1.0, 0.0, np.inf),
    "link_losses_per_hour": ("link_losses_per_s", 1.0 / _S_PER_HOUR, 0.0, np.inf),
    "metered": ("metered", 1.0, 0.0, 1.0),
    "has_charger": ("has_charger", 1.0, 0.0, 1.0),
    "battery_ratio": ("initial_battery_ratio", 1.0, 0.0, 1.0),
}
# A millionth of a phone's speed is a step of hours: anything under it is a mistake.
_LEAST_PEAK_RATIO = 1e-6


def _apply(fleet: Fleet, override: DeviceOverride, *, key: str) -> None:
    """Write an override into the columns of a fleet that nobody has seen yet."""
    rows = _rows(override, len(fleet), key=key)
    given = {field.name: getattr(override, field.name) for field in dataclasses.fields(override)}
    for field, (column, factor, lowest, highest) in _REPLACED.items():
        if given[field] is None:
            continue
        value = factor * _checked(given[field], lowest, highest, key=f"{key}.{field}")
        getattr(fleet, column)[rows] = value
        if fleet.cellular is not None and column in _LINK_COLUMNS:
            getattr(fleet.cellular, column)[rows] = value
    if override.peak_flops_ratio is not None:
        ratio = _checked(override.peak_flops_ratio, _LEAST_PEAK_RATIO, np.inf, key=f"{key}.peak_flops_ratio")
        fleet.peak_flops[rows] *= ratio


def _rows(override: DeviceOverride, devices: int, *, key: str) -> npt.NDArray[np.int64]:
    if override.devices == "all":
        return np.arange(devices)
    unknown = [device for device in override.devices if not 0 <= device < devices]
    if unknown:
        raise InputError(f"{key}.devices must be in 0..{devices - 1} (the fleet's), got {unknown[0]}")
    return np.array(override.devices, dtype=np.int64)


def _checked(value: float, lowest: float, highest: float, *, key: str) -> float:
    if not (lowest <= value <= highest and np.isfinite(value)):
        bound = f"{lowest:g} or more" if highest == np.inf else f"{lowest:g} to {highest:g}"
        raise InputError(f"{key} must be {bound}, got {value}")
    return value
