import re
from pathlib import Path

import numpy as np
import pytest
import torch

from pocketfleet.errors import InputError
from pocketfleet.training.examples import Examples
from pocketfleet.training.user_examples import UserExamples, joined


def some() -> UserExamples:
    """Users with 2, 0 and 3 rows."""
    x = torch.arange(10, dtype=torch.float32).reshape(5, 2)
    return UserExamples(x, torch.arange(5), np.array([0, 2, 2, 5]))


def test_each_user_has_its_own_rows() -> None:
    users = some()
    assert len(users) == 3
    assert [users.of(user).y.tolist() for user in range(3)] == [[0, 1], [], [2, 3, 4]]
    assert users.of(2).x.tolist() == [[4.0, 5.0], [6.0, 7.0], [8.0, 9.0]]
    for user in (-1, 3):
        with pytest.raises(IndexError):
            users.of(user)


def test_joined_is_what_the_parts_were() -> None:
    users = joined([some().of(user) for user in range(3)], what="device_examples")
    assert torch.equal(users.x, some().x)
    assert users.offsets.tolist() == [0, 2, 2, 5]


def test_users_that_are_not_alike() -> None:
    parts = [Examples(torch.ones(1, 2), torch.ones(1)), Examples(torch.ones(1, 2), torch.ones(1, dtype=torch.int64))]
    with pytest.raises(InputError, match=r"^device_examples\(1\) gives .* \(torch.int64\), other than device_examples"):
        joined(parts, what="device_examples")


@pytest.mark.parametrize(
    ("offsets", "message"),
    [
        (np.array([0, 2, 4]), r"must rise from 0 to the number of rows \(5\), got array\(\[0, 2, 4\]\)"),
        (np.array([0, 3, 2, 5]), "must rise"),
        (np.array([1, 5]), "must rise"),
        (np.array([0]), "one more than there are users"),
        (np.array([0.0, 5.0]), "must be a NumPy array of int64"),
        ([0, 5], "must be a NumPy array of int64"),
    ],
)
def test_offsets_that_cannot_be(offsets, message: str) -> None:
    with pytest.raises(InputError, match=message):
        UserExamples(some().x, some().y, offsets)


def test_saved_and_opened_it_is_the_same_and_the_file_cannot_change(tmp_path: Path) -> None:
    some().save(tmp_path / "deep" / "users")
    users = UserExamples.open(tmp_path / "deep" / "users")
    assert torch.equal(users.x, some().x)
    assert torch.equal(users.y, some().y)
    assert users.offsets.tolist() == [0, 2, 2, 5]
    users.x[0] = 100.0
    assert torch.equal(UserExamples.open(tmp_path / "deep" / "users").x, some().x)
    # Nothing half-written lies beside it.
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["users"]


def test_users_without_any_example(tmp_path: Path) -> None:
    empty = UserExamples(torch.zeros(0, 2), torch.zeros(0), np.array([0, 0, 0]))
    empty.save(tmp_path / "users")
    assert UserExamples.open(tmp_path / "users").x.shape == (0, 2)


def test_opened_rows_are_mapped_and_not_read(tmp_path: Path) -> None:
    # 256 MB of which three rows are looked at: the process grows by far less.
    x = np.lib.format.open_memmap(tmp_path / "x.npy", mode="w+", dtype=np.float32, shape=(64, 1 << 20))
    del x
    np.save(tmp_path / "y.npy", np.arange(64))
    np.save(tmp_path / "offsets.npy", np.arange(0, 65, 4))

    def resident_bytes() -> int:
        kilobytes = re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())
        assert kilobytes
        return 1024 * int(kilobytes[1])

    before = resident_bytes()
    users = UserExamples.open(tmp_path)
    assert users.of(3).x[:, 0].tolist() == [0.0] * 4
    assert resident_bytes() - before < 64 * 2**20


@pytest.mark.parametrize("name", ["x.npy", "offsets.npy"])
def test_a_missing_or_damaged_file(tmp_path: Path, name: str) -> None:
    some().save(tmp_path / "users")
    path = tmp_path / "users" / name
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(InputError, match=re.escape(f"cannot read {path}: ")):
        UserExamples.open(tmp_path / "users")
    path.unlink()
    with pytest.raises(InputError, match=re.escape(f"cannot read {path}: ") + ".*delete its folder to have it made"):
        UserExamples.open(tmp_path / "users")


def test_files_that_do_not_fit_together(tmp_path: Path) -> None:
    some().save(tmp_path / "users")
    np.save(tmp_path / "users" / "y.npy", np.arange(4))
    with pytest.raises(InputError, match="holds no users' examples: examples need as many inputs as targets"):
        UserExamples.open(tmp_path / "users")
