from typing import Literal

import numpy as np

from pocketfleet.training.round import RoundClosed
from pocketfleet.training.saved_closings import closings_from, saved_closings


def closing(index: int, reason: Literal["cohort", "deadline"], *device: int) -> RoundClosed:
    return RoundClosed(
        round=index, model_version=index, time_s=10.5 * index, opened_s=float(index), succeeded=bool(device),
        reason=reason, assignment_id=np.array(device, np.int64) + 100, device=np.array(device, np.int64),
        num_examples=np.array(device, np.int64) * 8, assigned=9, withdrawn=index,
    )  # fmt: skip


def rows(closings: list[RoundClosed]) -> list[tuple[object, ...]]:
    names = RoundClosed.__dataclass_fields__
    return [
        tuple(value.tolist() if isinstance(value := getattr(each, name), np.ndarray) else value for name in names)
        for each in closings
    ]


def test_closings_come_back_with_the_reports_of_each() -> None:
    closings = [closing(0, "cohort", 3, 5, 8), closing(1, "deadline"), closing(2, "cohort", 1)]
    assert rows(closings_from(saved_closings(closings))) == rows(closings)


def test_none_are_none() -> None:
    assert closings_from(saved_closings([])) == []
