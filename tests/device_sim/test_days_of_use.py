import numpy as np
import pandas as pd
import pytest

from pocketfleet.device_sim.days_of_use import days_of_use, plot_days
from pocketfleet.device_sim.tables import update_rows
from pocketfleet.errors import InputError


def update(device: int, start_s: float, *, before: float, after: float, present: int = 10) -> dict[str, float]:
    return {
        "start_s": start_s,
        "end_s": start_s + 100.0,
        "round": 0,
        "device": device,
        "model_version": 0,
        "num_present": present,
        "num_held_out": present // 5,
        "train_loss": 1.0,
        "metric_global": before,
        "metric_personalised": after,
    }


def test_a_phone_has_one_vote_a_day_however_often_it_reports() -> None:
    table = days_of_use(
        update_rows(
            [
                # Day 1: phone 0 twice, mean 5 before and 2 after; phone 1 once, 1 and 1. The last ends on day 2.
                update(0, 0.0, before=4.0, after=3.0, present=10),
                update(0, 500.0, before=6.0, after=1.0, present=20),
                update(1, 86_399.0, before=1.0, after=1.0, present=5),
                # Nothing held out.
                update(2, 86_399.0, before=np.nan, after=np.nan, present=3),
                # Day 3.
                update(1, 2 * 86_400.0, before=0.5, after=0.25, present=30),
            ]
        )
    )
    assert table.to_dict("list") == {
        "day": [1, 3],
        "updates": [3, 1],
        "devices": [2, 1],
        "num_present": [10.0, 30.0],
        "num_held_out": [2.0, 6.0],
        "metric_global": [3.0, 0.5],
        "metric_personalised": [1.5, 0.25],
    }


def test_a_picture_of_no_days_is_refused(tmp_path) -> None:
    nothing = days_of_use(update_rows([]))
    assert nothing.empty
    assert list(nothing)[:3] == ["day", "updates", "devices"]
    with pytest.raises(InputError, match="no update of this run was measured"):
        plot_days(nothing, tmp_path / "days.png", metric="mse")


def test_rows_of_updates_have_their_columns_in_order_whatever_came() -> None:
    shuffled = dict(reversed(update(3, 5.0, before=1.0, after=2.0).items()))
    assert list(update_rows([shuffled])) == list(update_rows([]))
    assert update_rows([shuffled]).dtypes.tolist() == update_rows([]).dtypes.tolist()
    assert isinstance(update_rows([]), pd.DataFrame)
