import numpy as np
import pytest

from pocketfleet.device_sim.eligibility import Reason, Rule, judge

GOOD = {
    "idle": True,
    "charging": True,
    "unmetered": True,
    "battery_ratio": 0.9,
    "fits_memory": True,
    "has_examples": True,
    "cool": True,
}
BAD = {
    Reason.NO_EXAMPLES: {"has_examples": False},
    Reason.LOW_MEMORY: {"fits_memory": False},
    Reason.IN_USE: {"idle": False},
    Reason.NOT_CHARGING: {"charging": False},
    Reason.METERED: {"unmetered": False},
    Reason.LOW_BATTERY: {"battery_ratio": 0.29},
    Reason.TOO_HOT: {"cool": False},
}


def reason(rule: Rule, **conditions: bool | float) -> Reason:
    columns = {name: np.array([value]) for name, value in {**GOOD, **conditions}.items()}
    code = judge(rule, **columns)  # type: ignore[arg-type]
    assert code.dtype == np.int8
    return Reason(code[0])


def test_a_phone_that_is_all_right_is_eligible() -> None:
    assert reason(Rule()) is Reason.ELIGIBLE


@pytest.mark.parametrize("expected", list(BAD))
def test_each_condition_has_its_reason(expected: Reason) -> None:
    assert reason(Rule(), **BAD[expected]) is expected


def test_the_first_failing_reason_wins() -> None:
    failing: dict[str, bool | float] = {}
    for expected in reversed(BAD):
        failing |= BAD[expected]
        assert reason(Rule(), **failing) is expected
    assert failing.keys() == GOOD.keys()


@pytest.mark.parametrize(
    ("rule", "excused"),
    [
        (Rule(idle=False), Reason.IN_USE),
        (Rule(charging=False), Reason.NOT_CHARGING),
        (Rule(unmetered=False), Reason.METERED),
        (Rule(min_battery_ratio=0.0), Reason.LOW_BATTERY),
    ],
)
def test_a_rule_excuses_one_condition_and_no_other(rule: Rule, excused: Reason) -> None:
    assert reason(rule, **BAD[excused]) is Reason.ELIGIBLE
    others = [other for other in BAD if other is not excused]
    assert len(others) == 6
    for other in others:
        assert reason(rule, **BAD[other]) is other


def test_the_floor_of_the_battery_is_eligible() -> None:
    assert reason(Rule(min_battery_ratio=0.3), battery_ratio=0.3) is Reason.ELIGIBLE


def test_devices_are_judged_apart() -> None:
    codes = judge(
        Rule(),
        idle=np.array([True, False, True]),
        charging=np.array([True, True, False]),
        unmetered=np.array([True, True, True]),
        battery_ratio=np.array([1.0, 1.0, 1.0]),
        fits_memory=np.array([True, True, True]),
        has_examples=np.array([True, True, True]),
    )
    assert codes.tolist() == [Reason.ELIGIBLE, Reason.IN_USE, Reason.NOT_CHARGING]


def test_reasons_print_as_words() -> None:
    # The words of the event log are part of its format.
    assert [each.word for each in Reason] == [
        "eligible",
        "no_examples",
        "low_memory",
        "in_use",
        "not_charging",
        "metered",
        "low_battery",
        "too_hot",
    ]


def test_a_floor_outside_zero_to_one_is_refused() -> None:
    with pytest.raises(ValueError, match=r"min_battery_ratio must be 0 to 1, got 30"):
        Rule(min_battery_ratio=30)
