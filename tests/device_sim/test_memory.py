import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted import ScriptedDay

from pocketfleet.device_sim.flash_day import FlashDay
from pocketfleet.device_sim.memory import RUNTIME_BYTES, FreeMemory, fits, runs_short

GB = 1e9
HOUR_S = 3600.0


def test_program_and_runtime_fit_under_the_headroom() -> None:
    planned = 26 * 2**20
    # 26 + 64 MiB needed; a tenth of the free memory stays free, so 100 MiB are enough and 99 are not.
    free = np.array([100.0, 99.0, 0.0]) * 2**20
    assert fits(planned, free).tolist() == [True, False, False]


def test_the_runtime_alone_needs_room() -> None:
    # An empty program needs RUNTIME_BYTES / 0.9.
    least = RUNTIME_BYTES / 0.9
    assert fits(0, np.array([least * 1.001, least * 0.999])).tolist() == [True, False]


def test_what_trains_already_needs_no_headroom() -> None:
    free = np.array([90.0, 89.0]) * 2**20
    assert runs_short(26 * 2**20 + RUNTIME_BYTES, free).tolist() == [False, True]
    assert fits(26 * 2**20, free).tolist() == [False, False]


def test_a_negative_plan_is_refused() -> None:
    with pytest.raises(ValueError, match="must be 0 or more, got -1"):
        fits(-1, np.array([1e9]))


def killed(
    memory: FreeMemory, day: FlashDay | ScriptedDay, from_s: np.ndarray, until_s: np.ndarray, *, needed_bytes: int
) -> np.ndarray:
    devices = np.arange(len(from_s))
    changes = day.changes(devices, from_s, until_s)
    return memory.killed_s(devices, from_s, until_s, changes, needed_bytes=needed_bytes)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**40),
    st.integers(0, 3 * 86_400),
    st.integers(1, 3_000),
    st.floats(0.1, 0.95),
    st.floats(0.3, 4.0),
)
def test_a_kill_is_the_first_second_at_which_too_little_is_free(
    seed: int, start: int, length: int, share: float, typical_gb: float
) -> None:
    # The slow way round: ask for every second what is free. Ten devices that live days with uses.
    day, devices = FlashDay(seed=seed), np.arange(10)
    memory = FreeMemory(seed=seed, typical_bytes=np.full(10, typical_gb * GB))
    needed = int(share * typical_gb * GB)
    from_s, until_s = np.full(10, float(start)), np.full(10, float(start + length))
    found_s = killed(memory, day, from_s, until_s, needed_bytes=needed)
    # All devices at all seconds at once, device by device within a second.
    who, at_s = np.tile(devices, length), np.repeat(np.arange(start, start + length, dtype=np.float64), 10)
    short = (memory.free_bytes(who, at_s, ~day.state(who, at_s).idle) < needed).reshape(length, 10)
    seconds = np.where(short.any(axis=0), start + short.argmax(axis=0), np.inf)
    # What lasts less than a second falls between the seconds.
    assert np.all(found_s <= seconds)
    hit = np.flatnonzero(np.isfinite(found_s))
    at_s = found_s[hit]
    assert np.all(memory.free_bytes(devices[hit], at_s, ~day.state(devices[hit], at_s).idle) < needed)
    assert np.all((at_s >= from_s[hit]) & (at_s < until_s[hit]))
    # The first full second after a kill is short too, unless the shortage was over by then.
    early = hit[np.ceil(at_s) < seconds[hit]]
    for number in early:
        assert not short[int(np.ceil(found_s[number]) - start) :][:1, number].any()


def test_kills_grow_as_the_margin_shrinks() -> None:
    day, devices = FlashDay(seed=1), 3000
    memory = FreeMemory(seed=1, typical_bytes=np.full(devices, GB))
    from_s, until_s = np.full(devices, 20 * HOUR_S), np.full(devices, 22 * HOUR_S)
    before, counts = np.zeros(devices, dtype=bool), []
    for share in (0.05, 0.3, 0.6, 0.9):
        dead = np.isfinite(killed(memory, day, from_s, until_s, needed_bytes=int(share * GB)))
        # Whoever dies of less dies of more.
        assert np.all(dead[before])
        before = dead
        counts.append(int(dead.sum()))
    assert counts[0] > 0
    assert np.all(np.diff(counts) > 0)


def test_nothing_kills_a_program_that_needs_nothing() -> None:
    day, devices = FlashDay(seed=1), 500
    memory = FreeMemory(seed=1, typical_bytes=np.full(devices, 0.1 * GB))
    from_s, until_s = np.zeros(devices), np.full(devices, 24 * HOUR_S)
    assert not np.isfinite(killed(memory, day, from_s, until_s, needed_bytes=0)).any()
    # Others die of it: apps in front take more than such a phone has.
    assert np.isfinite(killed(memory, day, from_s, until_s, needed_bytes=10**7)).all()


def test_an_app_in_front_takes_memory_and_gives_it_back() -> None:
    devices = 1000
    day = ScriptedDay(*((device, "idle", 1000.0, 1200.0) for device in range(0, devices, 2)))
    memory, at = FreeMemory(seed=5, typical_bytes=np.full(devices, GB)), np.arange(devices)
    free = {
        at_s: memory.free_bytes(at, np.full(devices, at_s), ~day.state(at, at_s).idle)
        for at_s in (999.0, 1000.0, 1200.0)
    }
    used = at % 2 == 0
    # Half the apps take 350 MB or more; nobody has less than nothing.
    assert np.mean(free[999.0][used] - free[1000.0][used] >= 0.35 * GB) == pytest.approx(0.5, abs=0.1)
    assert np.all(free[1000.0] >= 0.0)
    assert np.mean(free[1200.0][used] > free[1000.0][used]) > 0.98
    assert np.mean(free[1000.0][~used] == free[999.0][~used]) > 0.98
    # 1.3 GB and more: one in twenty.
    rich = FreeMemory(seed=5, typical_bytes=np.full(20_000, 100.0 * GB))
    many, now_s = np.arange(20_000), np.full(20_000, 50.0)
    taken = rich.free_bytes(many, now_s, many < 0) - rich.free_bytes(many, now_s, many >= 0)
    assert np.mean(taken >= 1.3 * GB) == pytest.approx(0.05, abs=0.008)
    assert np.median(taken) == pytest.approx(0.35 * GB, rel=0.03)


def test_a_phone_starts_by_what_is_free_then() -> None:
    devices = np.arange(5000)
    memory = FreeMemory(seed=2, typical_bytes=np.full(5000, 0.5 * GB))
    at_s, idle, used = np.full(5000, 1e5), devices < 0, devices >= 0
    for in_use in (idle, used):
        free = memory.free_bytes(devices, at_s, in_use)
        started = memory.may_start(devices, at_s, in_use, training_memory_bytes=2 * 10**8)
        np.testing.assert_array_equal(started, fits(2 * 10**8, free))
        assert 0.0 < started.mean() < 1.0
    # Too little typically is too little ever.
    assert not memory.may_start(devices, at_s, idle, training_memory_bytes=5 * 10**8).any()


def test_pressures_come_as_often_and_as_large_as_assumed() -> None:
    devices, typical = np.arange(200_000), np.full(200_000, GB)
    memory = FreeMemory(seed=1, typical_bytes=typical)
    taken = 1.0 - memory.free_bytes(devices, np.full(200_000, 7e5), devices < 0) / GB
    # 0.15 an hour of 300 s: 1.25 % of the time.
    assert np.mean(taken > 0.0) == pytest.approx(0.15 * 300 / 3600, rel=0.1)
    # 0.95 * u ** 4 is above half in 1 - (0.5 / 0.95) ** 0.25 of them.
    assert np.mean(taken[taken > 0.0] > 0.5) == pytest.approx(1.0 - (0.5 / 0.95) ** 0.25, abs=0.03)
    assert taken.max() <= 0.95


def test_a_further_device_changes_no_other() -> None:
    few, more = (FreeMemory(seed=1, typical_bytes=np.full(count, GB)) for count in (300, 301))
    day, from_s = FlashDay(seed=1), np.full(301, 70_000.0)
    one = killed(few, day, from_s[:300], from_s[:300] + 7200.0, needed_bytes=6 * 10**8)
    other = killed(more, day, from_s, from_s + 7200.0, needed_bytes=6 * 10**8)
    np.testing.assert_array_equal(one, other[:300])
    assert np.isfinite(one).any()


def test_blocks_of_devices_are_as_good_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    memory, day = FreeMemory(seed=1, typical_bytes=np.full(300, GB)), FlashDay(seed=1)
    from_s = np.linspace(0.0, 80_000.0, 300)
    whole = killed(memory, day, from_s, from_s + 3600.0, needed_bytes=6 * 10**8)
    monkeypatch.setattr("pocketfleet.device_sim.memory._BLOCK", 7)
    np.testing.assert_array_equal(killed(memory, day, from_s, from_s + 3600.0, needed_bytes=6 * 10**8), whole)
    assert np.isfinite(whole).any()


def test_memory_without_moments_is_a_constant() -> None:
    memory, day = FreeMemory(seed=1, typical_bytes=np.full(50, GB), moments=False), FlashDay(seed=1)
    devices, from_s = np.arange(50), np.zeros(50)
    assert np.all(memory.free_bytes(devices, from_s, devices >= 0) == GB)
    assert memory.may_start(devices, from_s, devices >= 0, training_memory_bytes=8 * 10**8).all()
    assert not np.isfinite(killed(memory, day, from_s, from_s + 86_400.0, needed_bytes=9 * 10**8)).any()


def test_the_next_app_may_be_the_one_that_is_too_large() -> None:
    # All are in use from before to after 600 s, when another app comes to the front.
    devices = np.arange(200)
    day = ScriptedDay(*((device, "idle", 500.0, 700.0) for device in range(200)))
    memory = FreeMemory(seed=1, typical_bytes=np.full(200, GB))
    found_s = killed(memory, day, np.full(200, 550.0), np.full(200, 650.0), needed_bytes=5 * 10**8)
    short = [memory.free_bytes(devices, np.full(200, at_s), devices >= 0) < 5 * 10**8 for at_s in (550.0, 599.0, 600.0)]
    turned = ~short[0] & ~short[1] & short[2]
    assert np.all(found_s[turned] == 600.0)
    assert turned.sum() > 20


def test_a_game_keeps_even_a_large_phone_from_starting() -> None:
    # 2 GB leave enough under any pressure; an app of 1.9 GB and more does not.
    devices = np.arange(3000)
    memory, at_s = FreeMemory(seed=1, typical_bytes=np.full(3000, 2 * GB)), np.full(3000, 1e5)
    assert memory.may_start(devices, at_s, devices < 0, training_memory_bytes=10**7).all()
    started = memory.may_start(devices, at_s, devices >= 0, training_memory_bytes=10**7)
    np.testing.assert_array_equal(started, fits(10**7, memory.free_bytes(devices, at_s, devices >= 0)))
    assert 0 < (~started).sum() < 150
