import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketfleet.device_sim.server_load import ServerLoad, SpreadBytes

SECONDS = 30
transfers = st.lists(
    st.tuples(st.floats(0.0, 20.0), st.floats(0.0, 9.9), st.integers(0, 10**9)), min_size=1, max_size=20
)


def spread(rows: list[tuple[float, float, int]], *, pieces: int = 1) -> np.ndarray:
    """The library's answer; ``rows`` of (start, seconds, bytes)."""
    made = SpreadBytes(SECONDS)
    for part in np.array_split(np.array(rows, dtype=np.float64), pieces):
        made.add(end_s=part[:, 0] + part[:, 1], seconds=part[:, 1], moved_bytes=part[:, 2])
    return made.by_second()


def slowly(rows: list[tuple[float, float, int]]) -> np.ndarray:
    """Second by second: which share of each transfer's time lies in it."""
    found = np.zeros(SECONDS + 1)
    for start_s, seconds, moved in rows:
        end_s = start_s + seconds
        start_s = end_s - seconds  # as rounded
        for second in range(SECONDS + 1):
            overlap = min(end_s, second + 1) - max(start_s, second)
            if int(start_s) == int(end_s):
                found[second] += moved if second == int(end_s) else 0.0
            elif overlap > 0:
                found[second] += moved * overlap / (end_s - start_s)
    return found


@given(transfers, st.integers(1, 3))
def test_bytes_are_spread_over_their_seconds_and_none_is_lost(
    rows: list[tuple[float, float, int]], pieces: int
) -> None:
    total = sum(moved for _, _, moved in rows)
    found = spread(rows, pieces=pieces)
    assert found.sum() == pytest.approx(total, rel=1e-9, abs=1e-3)
    np.testing.assert_allclose(found, slowly(rows), rtol=1e-6, atol=1e-6 * max(total, 1))


def test_a_transfer_by_hand() -> None:
    # 400 bytes from 1.5 to 5.5: 100 a second, half of that in the first and the last.
    np.testing.assert_allclose(spread([(1.5, 4.0, 400)])[:7], [0, 50, 100, 100, 100, 50, 0])
    # No point mass but where there is no time.
    np.testing.assert_allclose(spread([(3.25, 0.0, 8)])[:5], [0, 0, 0, 8, 0])


def events(rows: list[tuple[float, int, str, float, int]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["time_s", "round", "kind", "seconds", "bytes"])


ROWS = [
    (10.0, 0, "assign", 0.0, 0),
    (10.0, 0, "assign", 0.0, 0),
    (12.0, 0, "download", 2.0, 250_000_000),
    (13.5, 0, "assign", 0.0, 0),
    (20.5, 0, "report", 0.0, 0),
]


@pytest.mark.parametrize("pieces", [1, 3])
def test_check_ins_are_the_assigned_and_the_turned_away(pieces: int) -> None:
    rounds = pd.DataFrame({"round": [0], "turned_away": [7], "opened_s": [10.0], "closed_s": [24.5]})
    at_once = ServerLoad(30.0, paced=False, slots=2)
    paced = ServerLoad(30.0, paced=True, slots=3)
    for load in (at_once, paced):
        for part in np.array_split(np.arange(len(ROWS)), pieces):
            load.add_events(events([ROWS[row] for row in part]))
        load.add_rounds(rounds)
    # Without a pace: two assigned and seven turned away in the second of the opening.
    assert at_once.figures()["check_ins_per_s_peak"] == 9
    # With one: seven over the eleven seconds from the third slot's taking, 13.5, to 24.5; two at 10 are the most.
    assert paced.figures()["check_ins_per_s_peak"] == 2
    assert paced.check_ins[:13].sum() == 2
    assert paced.check_ins[13:25].sum() == 1 + 7
    for load in (at_once, paced):
        assert load.figures()["check_ins_per_s_mean"] == pytest.approx((3 + 7) / 30)
        assert load.figures()["reports_per_s_peak"] == 1
        # 250 MB over two seconds are 1 Gbit/s.
        assert load.figures()["download_gbit_per_s_peak"] == pytest.approx(1.0)
        assert load.figures()["download_gbit_per_s_mean"] == pytest.approx(2.0 / 30)
        assert load.figures()["upload_gbit_per_s_peak"] == 0
