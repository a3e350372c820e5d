import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pocketfleet.device_sim.charging import CHARGING_EFFICIENCY_RATIO, KNEE_RATIO, Taper
from pocketfleet.device_sim.day_changes import CHARGING, IDLE, WIFI, DayChanges
from pocketfleet.device_sim.lived_pieces import Supply, lived_through
from pocketfleet.device_sim.thermal import Cases, relaxed, warmed_by_decay
from pocketfleet.training.draws import draw_key, uniform

LOST_PER_ARRIVED = (1 - CHARGING_EFFICIENCY_RATIO) / CHARGING_EFFICIENCY_RATIO


def one_by_one(supply: Supply, changes: DayChanges, device: int, level: float, celsius: float) -> tuple[float, float]:
    """The oracle: one device, piece after piece."""
    row = slice(device, device + 1)
    capacity, full = supply.capacity_joules[row], supply.full_watts[row]
    levels, skins = np.array([level]), np.array([celsius])
    cases = None if supply.cases is None else supply.cases.rows(np.array([device]))

    def warmed(skin: np.ndarray, watts: np.ndarray, seconds: np.ndarray) -> np.ndarray:
        if cases is None:
            return skin
        return relaxed(skin, cases.settles_at_celsius(watts), seconds, cases.time_constant_s)

    start_s, end_s = changes.pieces()
    for code, seconds in zip(changes.code[device], (end_s - start_s)[device], strict=True):
        lasts = np.array([seconds])
        idle, charges = bool(code & IDLE), bool(code & CHARGING)
        draw = supply.idle_watts[row] if idle else supply.in_use_watts[row]
        fed = (supply.idle_fed_watts if idle else supply.in_use_fed_watts)[row] if charges else np.zeros(1)
        net = fed - draw
        after = np.clip(levels + net * lasts, 0.0, capacity)
        if after > KNEE_RATIO * capacity and net > 0.0 and seconds > 0.0:
            taper = Taper.of(levels, net_watts=net, full_watts=full, capacity_joules=capacity, seconds=lasts)
            after = taper.level_joules
            skins = warmed(skins, draw + LOST_PER_ARRIVED * (draw + net), taper.constant_s)
            if cases is not None:
                share = warmed_by_decay(
                    taper.falling_s, rate_per_s=taper.falling_per_s, time_constant_s=cases.time_constant_s
                )
                kelvin = cases.kelvin_per_watt * (LOST_PER_ARRIVED * taper.falling_watts) * share
                skins = warmed(skins, draw + LOST_PER_ARRIVED * draw, taper.falling_s) + kelvin
            skins = warmed(skins, draw + LOST_PER_ARRIVED * draw, taper.full_s)
        else:
            skins = warmed(skins, draw + LOST_PER_ARRIVED * fed, lasts)
        levels = after
    return float(levels[0]), float(skins[0])


@given(st.integers(0, 2**31), st.integers(1, 6), st.integers(0, 9), st.booleans())
def test_lives_are_those_of_a_walk_from_piece_to_piece(seed: int, devices: int, changes: int, warms: bool) -> None:
    keys = itertools.count()

    def drawn(low: float, high: float, *shape: int) -> np.ndarray:
        numbers = uniform(draw_key(seed, "test", next(keys)), int(np.prod(shape or devices)))
        return low + (high - low) * numbers.reshape(shape or devices)

    until_s = drawn(0.0, 90_000.0)
    time_s = np.sort(drawn(0.0, 90_000.0, devices, changes), axis=1)
    day = DayChanges(
        from_s=np.zeros(devices),
        until_s=until_s,
        time_s=np.where(time_s < until_s[:, np.newaxis], time_s, np.inf),
        code=drawn(0.0, int(IDLE | CHARGING | WIFI) + 1, devices, changes + 1).astype(np.uint8),
    )
    idle, capacity = drawn(0.05, 1.0), drawn(20_000.0, 70_000.0)
    full = drawn(0.0, 30.0)
    supply = Supply(
        capacity_joules=capacity,
        full_watts=full,
        idle_watts=idle,
        in_use_watts=idle + drawn(0.0, 3.0),
        idle_fed_watts=full * drawn(0.2, 1.0),
        in_use_fed_watts=full * drawn(0.2, 1.0),
        cases=Cases(
            room_celsius=25.0,
            kelvin_per_watt=drawn(4.0, 9.0),
            time_constant_s=drawn(300.0, 1200.0),
        )
        if warms
        else None,
    )
    level, celsius = drawn(0.0, 1.0) * capacity, drawn(20.0, 45.0)

    levels, skins = lived_through(supply, day, level, celsius)

    for device in range(devices):
        expected = one_by_one(supply, day, device, float(level[device]), float(celsius[device]))
        np.testing.assert_allclose((levels[device], skins[device]), expected, rtol=1e-12)
