from pathlib import Path

import numpy as np
import pytest

from pocketfleet.errors import InputError
from pocketfleet.training.user_examples import UserExamples
from pocketfleet.training.user_examples_writer import UserExamplesWriter


def test_users_written_one_after_the_other_are_opened_as_columns(tmp_path: Path) -> None:
    sizes = [0, 2, 0, 3, *[1] * 200]
    with UserExamplesWriter(tmp_path) as writer:
        for user, size in enumerate(sizes):
            if size:
                writer.add(np.full((size, 2, 3), user, np.float32), np.arange(size), where=f"user {user}")
            else:
                writer.add_nothing()
    users = UserExamples.open(tmp_path)
    assert np.diff(users.offsets).tolist() == sizes
    # 205 rows: a number of more digits than the 0 that the file began with.
    assert (tuple(users.x.shape), str(users.x.dtype)) == ((205, 2, 3), "torch.float32")
    for user, size in enumerate(sizes):
        assert users.of(user).x.flatten().tolist() == [float(user)] * (6 * size)
        assert users.of(user).y.tolist() == list(range(size))


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (
            np.ones((1, 3), np.float32),
            np.ones(1),
            r"^user 7 has x of shape \(3,\) and type float32, other than .*\(2,\)",
        ),
        (np.ones((1, 2), np.float64), np.ones(1), r"type float64, other than the first one's, \(2,\) and float32"),
        (np.ones((1, 2), np.float32), np.ones(1, np.int64), r"^user 7 has y of shape \(\) and type int64"),
        (np.ones((2, 2), np.float32), np.ones(1), r"^user 7 has 2 inputs \(x\) and 1 targets \(y\)"),
    ],
)
def test_a_user_unlike_the_first(tmp_path: Path, x: np.ndarray, y: np.ndarray, message: str) -> None:
    with UserExamplesWriter(tmp_path) as writer:
        writer.add(np.ones((1, 2), np.float32), np.ones(1), where="user 0")
        with pytest.raises(InputError, match=message):
            writer.add(x, y, where="user 7")


def test_nothing_to_write(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there are no examples"), UserExamplesWriter(tmp_path) as writer:
        writer.add_nothing()
