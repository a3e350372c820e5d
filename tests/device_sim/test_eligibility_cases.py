"""The cases that simulated phones and the Android app are both held against; the app's side is EligibilityTest.kt."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pocketfleet.device_sim.eligibility import Reason, Rule, judge
from pocketfleet.device_sim.memory import RUNTIME_BYTES, fits, runs_short
from pocketfleet.device_sim.thermal_policy import too_hot

FILE = json.loads((Path(__file__).parents[1] / "eligibility_cases.json").read_text(encoding="utf-8"))
CASES: list[dict[str, Any]] = FILE["cases"]


def phone(given: dict[str, Any]) -> dict[str, Any]:
    """The base with what a case changes."""
    unknown = given.keys() - FILE["base"].keys()
    assert not unknown
    return {**FILE["base"], **given, "rule": {**FILE["base"]["rule"], **given.get("rule", {})}}


def judged(case: dict[str, Any]) -> Reason:
    one = phone(case["given"])
    rule, training = Rule(**one["rule"]), one["training"]
    # What a phone does not tell: no degrees, a status of none.
    celsius = np.array([np.nan if one["skin_celsius"] is None else one["skin_celsius"]])
    status = np.array([one["thermal_status"] or 0])
    needed, free = one["needed_memory_bytes"], np.array([one["free_memory_bytes"]], dtype=np.float64)
    code = judge(
        rule,
        idle=np.array([one["idle"]]),
        charging=np.array([one["charging"]]),
        unmetered=np.array([one["unmetered"]]),
        battery_ratio=np.array([one["battery_ratio"]]),
        fits_memory=~runs_short(needed + RUNTIME_BYTES, free) if training else fits(needed, free),
        has_examples=np.array([one["num_examples"] >= rule.min_examples]),
        cool=~too_hot(celsius, status=status, training=training),
    )
    return Reason(int(code[0]))


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_a_case_is_judged_as_it_says(case: dict[str, Any]) -> None:
    assert judged(case).word == (case["expected"] or "eligible")


def test_the_cases_try_all_there_is() -> None:
    assert len(CASES) >= 40
    assert len({case["name"] for case in CASES}) == len(CASES)
    assert {name for case in CASES for name in case["given"]} == FILE["base"].keys()
    assert {name for case in CASES for name in case["given"].get("rule", {})} == FILE["base"]["rule"].keys()
    found = {(case["expected"] or "eligible", phone(case["given"])["training"]) for case in CASES}
    assert found == {(reason.word, training) for reason in Reason for training in (False, True)}
