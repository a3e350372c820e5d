import gc
import pickle
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketfleet.errors import PocketfleetError
from pocketfleet.training.draws import draw_key, normal
from pocketfleet.training.update_rows import UpdateRows

Rows = npt.NDArray[np.float32]


def rows_of(devices: npt.ArrayLike, *, columns: int = 13) -> Rows:
    return normal(draw_key(3, "row", np.asarray(devices, dtype=np.int64)), columns).astype(np.float32)


def open_files() -> int:
    """Of this process; 0 where the system does not tell."""
    place = Path("/proc/self/fd")
    return len(list(place.iterdir())) if place.exists() else 0


def whole(rows: UpdateRows, *, block_bytes: int = 10**6) -> Rows:
    return np.concatenate([block for _, block in rows.blocks(block_bytes=block_bytes)], axis=1)


@pytest.fixture(params=["memory", "file"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    return tmp_path if request.param == "file" else None


@pytest.mark.parametrize("columns", [1, 13, 400])
def test_rows_come_back_in_order_whatever_the_pieces(folder: Path | None, columns: int) -> None:
    rows = UpdateRows(folder)
    for piece in np.split(np.arange(30), [1, 2, 2, 9]):
        rows.append(rows_of(piece, columns=columns))
    assert len(rows) == 30
    assert np.array_equal(whole(rows), rows_of(range(30), columns=columns))


@given(st.integers(1, 40), st.integers(1, 10_000))
@settings(deadline=None)
def test_any_block_gives_the_same_rows_within_its_memory(columns: int, block_bytes: int) -> None:
    rows = UpdateRows()
    rows.append(rows_of(range(9), columns=columns))
    blocks = list(rows.blocks(block_bytes=block_bytes))
    assert [place for columns, _ in blocks for place in range(columns.start, columns.stop)] == list(range(columns))
    assert np.array_equal(whole(rows, block_bytes=block_bytes), rows_of(range(9), columns=columns))
    # One column of nine rows at least: 72 bytes as float64.
    assert all(8 * block.size <= max(block_bytes, 72) for _, block in blocks)


def test_columns_beyond_a_stop_are_not_read(folder: Path | None) -> None:
    rows = UpdateRows(folder)
    rows.append(rows_of(range(4)))
    blocks = [block for _, block in rows.blocks(block_bytes=96, stop=7)]
    # Three columns of four float64 are 96 bytes.
    assert [block.shape for block in blocks] == [(4, 3), (4, 3), (4, 1)]
    assert np.array_equal(np.concatenate(blocks, axis=1), rows_of(range(4))[:, :7])


def test_rows_can_grow_after_they_were_read(folder: Path | None) -> None:
    rows = UpdateRows(folder)
    rows.append(rows_of([5, 6]))
    assert np.array_equal(whole(rows), rows_of([5, 6]))
    rows.append(rows_of([2]))
    assert np.array_equal(whole(rows), rows_of([5, 6, 2]))


def test_rows_of_other_processes_are_added(folder: Path | None) -> None:
    rows = UpdateRows(folder)
    for start in (0, 4, 8):
        other = UpdateRows()
        other.append(rows_of(range(start, start + 3)))
        other.append(rows_of([start + 3]))
        rows.extend(pickle.loads(pickle.dumps(other)))
    assert np.array_equal(whole(rows, block_bytes=500), rows_of(range(12)))


def test_float64_rows_stay_float64(folder: Path | None) -> None:
    values = normal(draw_key(1, "double", np.arange(3)), 5)
    rows = UpdateRows(folder)
    rows.append(values)
    assert np.array_equal(whole(rows), values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (rows_of([3], columns=4), r"^rows must be 13 values of float32, got 4 of float32$"),
        (rows_of([3]).astype(np.float64), r"^rows must be 13 values of float32, got 13 of float64$"),
    ],
)
def test_what_does_not_belong_is_rejected_and_changes_nothing(folder: Path | None, values: Rows, message: str) -> None:
    rows = UpdateRows(folder)
    rows.append(rows_of([0, 1]))
    with pytest.raises(ValueError, match=message):
        rows.append(values)
    rows.append(rows_of([9]))
    assert np.array_equal(whole(rows), rows_of([0, 1, 9]))


def test_the_file_has_no_name_and_goes_with_the_rows(tmp_path: Path) -> None:
    gc.collect()
    before = open_files()
    rows = UpdateRows(tmp_path)
    rows.append(rows_of(range(100)))
    assert open_files() == before + (before > 0)
    assert list(tmp_path.iterdir()) == []
    del rows
    gc.collect()
    assert open_files() == before


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    rows = UpdateRows(tmp_path / "gone")
    with pytest.raises(PocketfleetError, match=r"cannot keep a round's updates in .*gone: .*No such file.*make room"):
        rows.append(rows_of([0]))
