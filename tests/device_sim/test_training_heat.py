import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pocketfleet.device_sim.charging import CHARGING_EFFICIENCY_RATIO
from pocketfleet.device_sim.thermal import Cases
from pocketfleet.device_sim.thermal_policy import (
    CHARGE_CELSIUS,
    CPU_CELSIUS,
    HYSTERESIS_KELVIN,
    LEAST_CHARGE_WATTS,
    STOP_CELSIUS,
    WATTS_EXPONENT,
)
from pocketfleet.device_sim.training_heat import Course, Power, course_of

TAU_S = 600.0
ENDLESS = np.array([np.inf])


def course(
    *,
    cpu: float,
    charger: float = 0.0,
    taken: float = 0.0,
    idle: float = 0.05,
    room: float = 25.0,
    start: float = 25.0,
    kelvin_per_watt: float = 6.5,
    work_s: float = np.inf,
) -> Course:
    one = {name: np.array([value]) for name, value in {"cpu": cpu, "idle": idle, "c": charger, "t": taken}.items()}
    return course_of(
        Power(cpu_watts=one["cpu"], idle_watts=one["idle"], charger_watts=one["c"], taken_watts=one["t"]),
        Cases(room_celsius=room, kelvin_per_watt=np.array([kelvin_per_watt]), time_constant_s=np.array([TAU_S])),
        np.array([start]),
        work_s=np.array([work_s]),
        until_s=ENDLESS,
    )


def at(value: float) -> np.ndarray:
    return np.array([value])


def euler(
    seconds: float,
    *,
    cpu: float,
    charger: float,
    taken: float,
    idle: float,
    room: float,
    start: float,
    kelvin_per_watt: float,
    step_s: float = 0.05,
) -> tuple[float, float, float, float]:
    """The rules step by step: skin, work, joules at the end, and when the phone had to stop."""
    celsius, work_s, joules, stop_s = start, 0.0, 0.0, np.inf
    severity, held = sum(start >= limit for limit in CPU_CELSIUS), start >= CHARGE_CELSIUS
    for number in range(round(seconds / step_s)):
        budget = [np.inf, 1.2, 0.8][severity] * 6.5 / kelvin_per_watt
        drawn = min(cpu, budget)
        given_watts = min(charger, (taken + idle + drawn) / CHARGING_EFFICIENCY_RATIO)
        if held:
            spare = (CHARGE_CELSIUS - room) / kelvin_per_watt - idle - drawn
            given_watts = min(given_watts, max(spare / (1.0 - CHARGING_EFFICIENCY_RATIO), LEAST_CHARGE_WATTS))
        heat = idle + drawn + (1.0 - CHARGING_EFFICIENCY_RATIO) * given_watts
        work_s += step_s * (drawn / cpu) ** (1.0 / WATTS_EXPONENT)
        joules += step_s * drawn
        celsius += step_s * (room + kelvin_per_watt * heat - celsius) / TAU_S
        held = held or celsius >= CHARGE_CELSIUS
        if severity < 2 and celsius >= CPU_CELSIUS[severity]:
            severity += 1
        elif severity > 0 and celsius <= CPU_CELSIUS[severity - 1] - HYSTERESIS_KELVIN:
            severity -= 1
        if celsius >= STOP_CELSIUS and stop_s == np.inf:
            stop_s = (number + 1) * step_s
    return celsius, work_s, joules, stop_s


PHONES = {
    "cpu": st.floats(0.2, 8.0),
    "charger": st.sampled_from([0.0, 5.0, 16.0, 40.0]),
    "taken": st.sampled_from([0.0, 1.0, 60.0]),
    "idle": st.floats(0.01, 0.3),
    "room": st.floats(5.0, 42.0),
    "start": st.floats(20.0, 46.0),
    "kelvin_per_watt": st.sampled_from([5.7, 6.5, 7.5]),
}


@settings(max_examples=40, deadline=None)
@given(st.fixed_dictionaries(PHONES), st.floats(1.0, 5000.0))
def test_the_closed_form_is_what_small_steps_come_to(phone: dict[str, float], seconds: float) -> None:
    assume(phone["start"] >= phone["room"])
    made = course(**phone)
    celsius, work_s, joules, stop_s = euler(seconds, **phone)
    if made.too_hot_s[0] < seconds:
        assert stop_s == pytest.approx(made.too_hot_s[0], rel=0.02, abs=1.0)
        return
    # Steps of 0.05 s cross thresholds late by up to one step, and some of them more where the skin hardly moves.
    assert made.work_s(at(seconds))[0] == pytest.approx(work_s, rel=0.02, abs=0.5)
    assert made.joules(at(seconds))[0] == pytest.approx(joules, rel=0.02, abs=0.5)
    assert made.celsius(at(seconds))[0] == pytest.approx(celsius, abs=0.25)


@settings(max_examples=100, deadline=None)
@given(st.fixed_dictionaries(PHONES), st.floats(0.0, 50_000.0), st.floats(0.0, 5000.0))
def test_work_rises_with_time_and_time_is_its_inverse(phone: dict[str, float], work_s: float, more_s: float) -> None:
    made = course(**phone)
    elapsed_s = made.elapsed_s(at(work_s))
    assert made.work_s(elapsed_s)[0] == pytest.approx(work_s, rel=1e-9, abs=1e-6)
    # Never faster than at full speed, and never still.
    assert elapsed_s[0] >= work_s - 1e-6
    assert made.work_s(elapsed_s + more_s + 1.0)[0] > work_s - 1e-6
    assert made.held_back_s(elapsed_s)[0] <= elapsed_s[0] + 1e-6


@settings(max_examples=60, deadline=None)
@given(st.lists(st.fixed_dictionaries(PHONES), min_size=2, max_size=6), st.floats(1.0, 30_000.0))
def test_phones_are_alone_with_their_heat(phones: list[dict[str, float]], seconds: float) -> None:
    # Rooms differ between phones here, cases take one: settled temperatures are shifted instead.
    phones = [{**phone, "room": phones[0]["room"]} for phone in phones]
    columns = {name: np.array([phone[name] for phone in phones]) for name in PHONES}
    together = course_of(
        Power(
            cpu_watts=columns["cpu"],
            idle_watts=columns["idle"],
            charger_watts=columns["charger"],
            taken_watts=columns["taken"],
        ),
        Cases(
            room_celsius=phones[0]["room"],
            kelvin_per_watt=columns["kelvin_per_watt"],
            time_constant_s=np.full(len(phones), TAU_S),
        ),
        columns["start"],
        work_s=np.full(len(phones), np.inf),
        until_s=np.full(len(phones), np.inf),
    )
    time_s = np.full(len(phones), seconds)
    for number, phone in enumerate(phones):
        alone = course(**phone)
        for question in ("work_s", "joules", "celsius", "elapsed_s"):
            answers = getattr(together, question)(time_s), getattr(alone, question)(at(seconds))
            assert answers[0][number] == pytest.approx(answers[1][0], rel=1e-12), question
        assert together.too_hot_s[number] == alone.too_hot_s[0]


def test_a_minute_on_a_cool_phone_is_one_piece_at_full_speed_to_the_bit() -> None:
    made = course(cpu=2.14, charger=16.0, taken=10.0, work_s=61.7)
    assert made.begin_s.shape == (1, 1)
    assert made.elapsed_s(at(61.7))[0] == 61.7
    assert made.work_s(at(61.7))[0] == 61.7
    assert made.too_hot_s[0] == np.inf


def test_two_budgets_alternate_around_the_threshold_for_ever() -> None:
    # 6 W settle at 25 + 6.05 * 6.5 = 64.3 degrees: 43 comes after 600 ln(39.3 / 21.3) s. Under 1.2 W the skin would
    # settle at 33.1 and passes 41.1 after 600 ln(9.9 / 8.0) s; then up again, from 41.1 to 43: 600 ln(23.2 / 21.3) s.
    made = course(cpu=6.0)
    first_s, down_s, up_s = (
        600 * np.log((25 + 6.05 * 6.5 - 25) / (25 + 6.05 * 6.5 - 43)),
        600 * np.log((43 - 25 - 1.25 * 6.5) / (41.1 - 25 - 1.25 * 6.5)),
        600 * np.log((25 + 6.05 * 6.5 - 41.1) / (25 + 6.05 * 6.5 - 43)),
    )
    assert made.cycle_s[0] == pytest.approx(down_s + up_s)
    for cycle in (0, 1, 1000):
        begins_s = at(first_s + cycle * (down_s + up_s))
        assert made.celsius(begins_s + 1e-6)[0] == pytest.approx(43.0, abs=1e-3)
        assert made.celsius(begins_s + down_s)[0] == pytest.approx(41.1, abs=1e-3)
    held_speed = (1.2 / 6.0) ** (1 / 1.8)
    cycle_work_s = made.work_s(at(first_s + 10 * made.cycle_s[0])) - made.work_s(at(first_s))
    assert cycle_work_s[0] == pytest.approx(10 * (held_speed * down_s + up_s))
    assert made.joules(at(first_s + down_s))[0] == pytest.approx(6.0 * first_s + 1.2 * down_s)
    assert made.held_back_s(at(first_s + down_s))[0] == pytest.approx(down_s)


def test_in_a_hot_room_the_phone_comes_to_its_limit_and_a_smaller_case_sooner() -> None:
    mid, small = (course(cpu=3.0, room=42.0, start=42.5, kelvin_per_watt=each) for each in (6.5, 7.5))
    # 0.8 W and 0.05 W of the rest settle at 42 + 5.5 degrees: above the limit of 46.5.
    assert small.too_hot_s[0] < mid.too_hot_s[0] < np.inf
    assert mid.celsius(mid.too_hot_s)[0] == pytest.approx(STOP_CELSIUS)
    assert course(cpu=3.0, room=25.0).too_hot_s[0] == np.inf


def test_a_charger_is_held_back_where_the_skin_would_pass_its_limit() -> None:
    # CPU and idle alone settle at 25 + 1.05 * 6.5 = 31.8; 40 W of charging, 6 W of it heat, far above 39.
    made = course(cpu=1.0, charger=40.0, taken=60.0)
    assert made.celsius(at(1e6))[0] == pytest.approx(CHARGE_CELSIUS)
    # What holds it there: (14 / 6.5 - 1.05) W of losses.
    assert made.charger_watts[0].tolist() == pytest.approx([40.0, (14 / 6.5 - 1.05) / 0.15])
    assert made.withheld_watts[0].tolist() == pytest.approx([0.0, 40.0 - (14 / 6.5 - 1.05) / 0.15])
    # The CPU alone takes the skin beyond: the charger still gives what the policy leaves it.
    assert course(cpu=2.5, charger=40.0, taken=60.0).charger_watts[0, 1] == LEAST_CHARGE_WATTS
