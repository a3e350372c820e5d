"""Counts of minutes, worked out by hand."""

from pocketfleet.training.server.minute_counts import MinuteCounts


def test_what_came_stands_in_its_minute() -> None:
    lost: list[int] = []
    counts = MinuteCounts(deadline_s=100.0, lost=lost.append)
    for at_s in (0.0, 59.0, 61.0):
        counts.checked_in(now_s=at_s)
    for assignment, at_s in ((0, 0.0), (1, 59.0), (2, 61.0)):
        counts.assigned(assignment, now_s=at_s)
    counts.reported(1, accepted=True, now_s=70.0)
    counts.reported(2, accepted=False, now_s=80.0)  # late: no dropout, and no report that counts
    newest, before, *rest = counts.minutes(now_s=119.0)
    assert (newest.ago, newest.check_ins, newest.assigned, newest.reports, newest.dropouts) == (0, 1, 1, 1, 1)
    assert (before.ago, before.check_ins, before.assigned, before.reports, before.dropouts) == (1, 2, 2, 0, 0)
    assert len(rest) == 58
    assert lost == [1]


def test_a_dropout_counts_when_it_is_known() -> None:
    counts = MinuteCounts(deadline_s=100.0)
    counts.assigned(0, now_s=10.0)
    assert sum(one.dropouts for one in counts.minutes(now_s=109.9)) == 0
    # Known at 110 s, the second minute, however late anybody looks.
    assert [one.ago for one in counts.minutes(now_s=310.0) if one.dropouts] == [4]
    # A report after that changes nothing.
    counts.reported(0, accepted=False, now_s=311.0)
    assert sum(one.dropouts for one in counts.minutes(now_s=312.0)) == 1


def test_minutes_beyond_the_hour_are_forgotten() -> None:
    counts = MinuteCounts(deadline_s=100.0)
    for minute in range(200):
        counts.checked_in(now_s=60.0 * minute)
    assert sum(one.check_ins for one in counts.minutes(now_s=60.0 * 199)) == 60
    assert len(counts._minutes) == 60
    assert sum(one.check_ins for one in counts.minutes(now_s=60.0 * 1000)) == 0
