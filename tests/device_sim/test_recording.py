"""A service's decisions as stories, worked out by hand."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pocketfleet.device_sim.recording import DECISIONS, Recording, ReportOf, Story, decisions_table
from pocketfleet.errors import InputError

# Device 1 and 0 get work, 2 finds the round full; 1 reports twice, comes again, and is silent.
ROWS = [
    (0, 10.0, "check_in", 1, 0, 0, 0),
    (1, 10.0, "check_in", 0, 1, 0, 0),
    (2, 11.0, "check_in", 2, -1, 0, 1),
    (3, 15.0, "report", 1, 0, 20, 0),
    (4, 16.0, "report", 1, 0, 20, 1),
    (5, 20.0, "check_in", 1, 2, 0, 0),
    (6, 50.0, "advance", -1, -1, 0, 0),
]
NAMES = ["sequence", "time_s", "kind", "device", "assignment", "num_examples", "code"]


def table() -> pd.DataFrame:
    reports = pd.DataFrame({"assignment": [0], "steps": [3], "bytes": [100]})
    return decisions_table(pd.DataFrame(ROWS, columns=NAMES), reports)


def test_each_assignment_has_its_story() -> None:
    recording = Recording.of(table())
    assert recording.check_in_s.tolist() == [10.0, 10.0, 11.0, 20.0]
    assert recording.device.tolist() == [1, 0, 2, 1]
    assert recording.sequence.tolist() == [0, 1, 2, 5]
    assert (recording.devices, recording.end_s, recording.update_bytes) == (3, 50.0, 100)
    first = ReportOf(time_s=15.0, sequence=3, num_examples=20)
    again = ReportOf(time_s=16.0, sequence=4, num_examples=20)
    assert recording.stories == {
        1: [Story(time_s=10.0, reports=[first, again], steps=3), Story(time_s=20.0, reports=[], steps=0)],
        0: [Story(time_s=10.0, reports=[], steps=0)],
    }


def test_steps_and_bytes_stand_with_reports_alone() -> None:
    found = table()
    assert found["bytes"].tolist() == [0, 0, 0, 100, 100, 0, 0]
    assert found["steps"].tolist() == [0, 0, 0, 3, 3, 0, 0]
    empty = decisions_table(
        pd.DataFrame(ROWS[:3], columns=NAMES), pd.DataFrame({"assignment": [], "steps": [], "bytes": []})
    )
    assert np.array_equal(empty[["steps", "bytes"]], np.zeros((3, 2)))


def test_a_log_is_read_back_or_what_is_wrong_with_it_is_told(tmp_path: Path) -> None:
    table().to_parquet(tmp_path / DECISIONS, index=False)
    assert Recording.load(tmp_path).stories == Recording.of(table()).stories
    table().iloc[:0].to_parquet(tmp_path / DECISIONS, index=False)
    with pytest.raises(InputError, match="the service had decided nothing yet"):
        Recording.load(tmp_path)
    (tmp_path / DECISIONS).write_bytes(b"PAR1")
    with pytest.raises(InputError, match="holds no service's log"):
        Recording.load(tmp_path)
