import numpy as np
import pytest

from pocketfleet.training.device_rows import DeviceRows, DrawnRows, ListedRows, padded


def arrays(*parts: list[int]) -> list[np.ndarray]:
    return [np.array(part, dtype=np.int64) for part in parts]


def as_lists(rows: DeviceRows, devices: list[int]) -> list[list[int]]:
    """What ``many`` gives, its padding cut off."""
    table, counts = rows.many(np.array(devices, dtype=np.int64))
    assert table.shape == (len(devices), max(counts, default=0))
    return [row[:count].tolist() for row, count in zip(table, counts.tolist(), strict=True)]


def test_many_devices_have_the_rows_of_each() -> None:
    rows = ListedRows.of(arrays([5, 3, 4], [], [9], [7, 1]))
    assert len(rows) == 4
    assert rows.sizes().tolist() == [3, 0, 1, 2]
    assert [rows[device].tolist() for device in range(4)] == [[5, 3, 4], [], [9], [7, 1]]
    assert as_lists(rows, [3, 0, 1, 2, 3]) == [[7, 1], [5, 3, 4], [], [9], [7, 1]]
    assert as_lists(rows, []) == []
    # Beyond its own a device repeats its last row; one without any has row 0.
    assert rows.many(np.array([2, 1, 0]))[0].tolist() == [[9, 9, 9], [5, 5, 5], [5, 3, 4]]


def test_without_rows_the_numbers_themselves_are_meant() -> None:
    rows = ListedRows(np.array([0, 2, 2, 5]))
    assert [rows[device].tolist() for device in range(3)] == [[0, 1], [], [2, 3, 4]]
    assert as_lists(rows, [2, 1, 0]) == [[2, 3, 4], [], [0, 1]]


def test_drawn_rows_are_drawn_for_those_who_are_asked_for() -> None:
    asked = []

    def draw(devices: np.ndarray) -> np.ndarray:
        asked.append(devices.tolist())
        return devices[:, np.newaxis] * 10 + np.arange(3)

    rows = DrawnRows(1_000_000, 3, draw)
    assert (len(rows), rows.sizes().sum()) == (1_000_000, 3_000_000)
    assert asked == []
    assert rows[7].tolist() == [70, 71, 72]
    assert as_lists(rows, [2, 5]) == [[20, 21, 22], [50, 51, 52]]
    assert asked == [[7], [2, 5]]


@pytest.mark.parametrize("rows", [ListedRows.of(arrays([1], [2])), DrawnRows(2, 1, lambda devices: devices[:, None])])
def test_there_are_no_devices_beyond_the_last(rows: DeviceRows) -> None:
    for device in (-1, 2):
        with pytest.raises(IndexError):
            rows[device]


def test_arrays_are_padded() -> None:
    table, counts = padded(arrays([4, 5], [6]))
    assert (table.tolist(), counts.tolist()) == ([[4, 5], [6, 6]], [2, 1])
