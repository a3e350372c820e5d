import numpy as np
import pandas as pd
import pytest

from pocketfleet.device_sim.milestone import Target, days_to_rounds, days_to_target, parse_target
from pocketfleet.errors import InputError

DAY = 86_400.0
# A round a quarter of a day apart, each a tenth of a day long but the third, which was abandoned.
ROUNDS = pd.DataFrame(
    {
        "opened_s": DAY * np.array([0.0, 0.25, 0.5, 0.75, 1.0]),
        "closed_s": DAY * np.array([0.1, 0.35, 0.6, 0.85, 1.2]),
        "outcome": ["cohort", "cohort", "abandoned", "deadline", "cohort"],
        "model_version": [1, 2, 2, 3, 4],
        "test_accuracy": [0.3, np.nan, np.nan, 0.6, 0.5],
    }
)


def test_days_to_rounds_by_hand() -> None:
    found = days_to_rounds(ROUNDS, 3, days=2.0)
    assert found["models_made"] == 4
    assert found["days_to_rounds"] == found["days_to_rounds_at_least"] == pytest.approx(0.85)
    # Starts: 0 to 0.85, 0.25 to 1.2; percentiles between 0.85 and 0.95.
    assert found["days_to_rounds_by_start_p5"] == pytest.approx(0.855)
    assert found["days_to_rounds_by_start_p95"] == pytest.approx(0.945)


def test_rounds_that_were_not_made_have_a_lower_bound_alone() -> None:
    found = days_to_rounds(ROUNDS, 10, days=2.0)
    assert found["days_to_rounds"] is None
    assert found["days_to_rounds_at_least"] == 2.0
    assert found["days_to_rounds_at_mean_pace"] == pytest.approx(2.0 * 10 / 4)
    assert days_to_rounds(ROUNDS.iloc[:0], 10, days=2.0)["days_to_rounds_at_mean_pace"] is None


def test_days_to_a_target() -> None:
    found = days_to_target(ROUNDS, Target(metric="test_accuracy", sign=">=", value=0.55), days=2.0)
    assert found["days_to_target"] == pytest.approx(0.85)
    assert found["models_to_target"] == 3
    missed = days_to_target(ROUNDS, Target(metric="test_accuracy", sign=">=", value=0.9), days=2.0)
    assert missed["days_to_target"] is None
    assert (missed["days_to_target_at_least"], missed["target_metric_best"]) == (2.0, 0.6)
    low = days_to_target(ROUNDS, Target(metric="test_accuracy", sign="<=", value=0.3), days=2.0)
    assert (low["models_to_target"], low["target_metric_best"]) == (1, 0.3)


@pytest.mark.parametrize("text", ["accuracy=0.9", " test_accuracy = 0.9 "])
def test_an_equal_sign_takes_its_direction_from_the_untrained_model(text: str) -> None:
    target = parse_target(text)
    assert target == Target(metric="test_accuracy", sign="=", value=0.9)
    assert target.against({"test_accuracy": 0.1}).sign == ">="
    assert target.against({"test_accuracy": 3.0}).sign == "<="


@pytest.mark.parametrize("text", ["accuracy", "accuracy=", "=3", "accuracy=high", "accuracy=nan", "a b=1", "a<1"])
def test_what_is_no_target(text: str) -> None:
    with pytest.raises(InputError, match="--target takes metric=value, metric>=value or metric<=value with a number"):
        parse_target(text)


def test_an_unknown_metric() -> None:
    with pytest.raises(InputError, match=r"'test_f1', which the task does not measure; it has test_loss, test_mse"):
        parse_target("f1=0.9").against({"test_loss": 1.0, "test_mse": 1.0})


@pytest.mark.parametrize(("text", "start"), [("mse<=30", 20.0), ("mse>=30", 40.0), ("mse=30", 30.0)])
def test_a_target_that_is_met_already(text: str, start: float) -> None:
    with pytest.raises(InputError, match=r"is met before any training .*: ask for more"):
        parse_target(text).against({"test_mse": start})
