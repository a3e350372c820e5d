import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pocketfleet.device_sim.cohort import Cohort, chunks, one_by_one_chunk


@given(
    rows=st.lists(st.tuples(st.integers(1, 5), st.integers(1, 40), st.integers(0, 2)), min_size=1, max_size=40),
    size=st.integers(1, 12),
)
def test_chunks_hold_each_device_once_with_falling_steps_of_one_version(
    rows: list[tuple[int, int, int]], size: int
) -> None:
    cohort = Cohort.of_devices(range(len(rows)), steps=[steps for steps, _, _ in rows], batch_seed=range(len(rows)))
    cohort.num_present[:] = [present for _, present, _ in rows]
    cohort.model_version[:] = [version for _, _, version in rows]
    cut = list(chunks(cohort, size=size))
    assert sorted(np.concatenate([chunk.place for chunk in cut])) == list(range(len(rows)))
    for chunk in cut:
        assert 1 <= len(chunk) <= size
        assert len(set(chunk.model_version.tolist())) == 1
        assert (np.diff(chunk.steps) <= 0).all()
        # Rows go along whole.
        assert [rows[place] for place in chunk.place.tolist()] == list(
            zip(chunk.steps.tolist(), chunk.num_present.tolist(), chunk.model_version.tolist(), strict=True)
        )
    # As few as there can be: all but the last chunk of a version are full.
    versions = [version for _, _, version in rows]
    assert len(cut) == sum(-(-versions.count(version) // size) for version in set(versions))


def test_a_row_knows_what_its_device_held() -> None:
    cohort = Cohort.of_devices([4, 2])
    cohort.first_example[:] = [3, 0]
    cohort.num_present[:] = [5, 1]
    assert (cohort.present(0), cohort.present(1)) == (range(3, 8), range(1))
    assert cohort.take(np.array([1])).device.tolist() == [2]


def test_one_by_one_a_cohort_is_sixteen_chunks_or_more() -> None:
    assert [one_by_one_chunk(devices) for devices in (1, 10, 16, 32, 128, 10_000)] == [1, 1, 1, 2, 8, 8]
