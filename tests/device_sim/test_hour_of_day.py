import pandas as pd
import pytest

from pocketfleet.device_sim.hour_of_day import HoursOfDay

DAY, HOUR = 86_400.0, 3600.0


def test_rounds_and_losses_by_hour() -> None:
    hours = HoursOfDay()
    hours.add_rounds(
        pd.DataFrame(
            {
                # 3 a.m. of two days, and one that opens at the end of the third hour.
                "opened_s": [3 * HOUR, DAY + 3.5 * HOUR, 4 * HOUR - 1],
                "closed_s": [3 * HOUR + 100, DAY + 3.5 * HOUR + 300, 4 * HOUR + 199],
                "outcome": ["cohort", "abandoned", "deadline"],
            }
        )
    )
    for kind, reason, time_s in (
        ("report", "accepted", 18 * HOUR),
        ("report", "late", 18 * HOUR + 5),
        ("drop", "in_use", DAY + 18 * HOUR),
        ("drop", "in_use", 2 * DAY + 18.9 * HOUR),
        ("train", "in_use", 18 * HOUR),  # the stage that was cut short is no further loss
    ):
        hours.add_events(pd.DataFrame({"kind": [kind], "reason": [reason], "time_s": [time_s]}))
    rows = hours.rows()
    assert [row["hour"] for row in rows] == list(range(24))
    assert (rows[3]["rounds"], rows[3]["abandoned"], rows[3]["round_p50_s"]) == (3, 1, 200.0)
    assert rows[3]["round_p95_s"] == pytest.approx(200 + 0.9 * 100)
    assert (rows[4]["rounds"], rows[4]["round_p50_s"]) == (0, None)
    assert rows[18]["attempts_ended"] == 4
    assert (rows[18]["lost_ratio_in_use"], rows[18]["lost_ratio_late"]) == (0.5, 0.25)
    assert rows[3]["lost_ratio_late"] is None
