import numpy as np

from pocketfleet.training.assignments import COUNTED, LIVE, NOT_YET, Assignments
from pocketfleet.training.round import ReportCode


def answered(table: Assignments, *ids: int, model_version: int = 0) -> list[tuple[str, int]]:
    code, staleness = table.answers(np.array(ids), model_version=model_version)
    return [(ReportCode(each).name, int(stale)) for each, stale in zip(code, staleness, strict=True)]


def test_the_open_round_is_in_rows_and_closed_ones_are_answers() -> None:
    table = Assignments(population=5)
    assert table.hand_out(np.array([4, 1, 2])).tolist() == [0, 1, 2]
    table.count(np.array([0, 2]), np.array([40, 20]))
    table.withdraw(np.array([1]))
    assert table.hand_out(np.array([1])).tolist() == [3]
    assert table.states(np.array([0, 1, 4])).tolist() == [NOT_YET, LIVE, COUNTED]
    assert answered(table, 0, 1, 3, 4, -1) == [
        ("REPEATED", 0), ("WITHDRAWN", 0), ("ACCEPTED", 0), ("UNKNOWN", -1), ("UNKNOWN", -1)
    ]  # fmt: skip

    reports = table.close(ReportCode.LATE, model_version=7)
    # In order of device: 2's report came on assignment 2, 4's on 0.
    assert {name: column.tolist() for name, column in reports.items()} == {
        "assignment_id": [2, 0],
        "device": [2, 4],
        "num_examples": [20, 40],
    }
    assert table.handed_out == 0
    assert table.states(np.array([1, 4])).tolist() == [NOT_YET, NOT_YET]
    assert table.hand_out(np.array([2])).tolist() == [4]
    assert answered(table, 3, 0, 1, 4, model_version=9) == [
        ("LATE", 2), ("REPEATED", 2), ("WITHDRAWN", 2), ("ACCEPTED", 0)
    ]  # fmt: skip


def test_staleness_counts_from_the_version_of_the_round_that_handed_it_out() -> None:
    table = Assignments(population=3)
    for model_version in (0, 0, 1):  # the first round was abandoned
        table.hand_out(np.array([0, 1]))
        table.close(ReportCode.DEADLINE_PASSED, model_version=model_version)
    table.close(ReportCode.DEADLINE_PASSED, model_version=2)  # nobody was in it
    assert [stale for _, stale in answered(table, *range(6), model_version=3)] == [3, 3, 3, 3, 2, 2]


def test_a_table_that_grew_is_restored_whole() -> None:
    table, devices = Assignments(population=500), np.arange(500)
    table.hand_out(devices)
    table.close(ReportCode.LATE, model_version=0)
    ids = table.hand_out(devices[::-1])
    table.count(ids[:7], np.arange(7) + 1)

    restored = Assignments(population=500)
    restored.restore(table.state())
    table.hand_out(devices[:1])  # a copy was taken
    assert restored.handed_out == 500
    assert restored.states(devices).tolist() == [LIVE] * 493 + [COUNTED] * 7
    np.testing.assert_array_equal(restored.hand_out(np.array([3])), [1000])
    # Device 499 has the first id of the second round, 493 the seventh.
    reports = restored.close(ReportCode.LATE, model_version=1)
    assert reports["num_examples"].tolist() == [7, 6, 5, 4, 3, 2, 1]
    assert reports["device"].tolist() == list(range(493, 500))
