import os
from pathlib import Path

import numpy as np
import pytest

from pocketfleet.errors import InputError
from pocketfleet.training.converted import Converted, converted, held_back
from pocketfleet.training.user_examples_writer import UserExamplesWriter


class Source:
    """A file whose number is everybody's x; counts how often it is converted."""

    def __init__(self, path: Path) -> None:
        self.path, self.times = path, 0

    def open(self, *, cache: str = "", **options: object) -> Converted:
        return converted(self.path, [self.path], options, cache=cache, convert=self._convert)

    def _convert(self, users: UserExamplesWriter, test: UserExamplesWriter) -> None:
        self.times += 1
        x = np.array([[float(self.path.read_text())]], np.float32)
        for writer in (users, users, test):
            writer.add(x, np.zeros(1, np.int64), where="the file")


@pytest.fixture
def source(tmp_path: Path) -> Source:
    path = tmp_path / "data"
    path.write_text("1")
    return Source(path)


def test_it_is_converted_once(source: Source, tmp_path: Path) -> None:
    for _ in range(2):
        found = source.open(width=1)
        assert (len(found.users), found.users.x.tolist(), found.test.x.tolist()) == (2, [[1.0], [1.0]], [[1.0]])
    assert source.times == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "data.pocketfleet"]


def test_it_is_converted_anew_when_the_file_or_an_option_changes(source: Source) -> None:
    source.open(width=1)
    source.path.write_text("2")
    # Of the same length, and perhaps within one tick of the file system's clock.
    os.utime(source.path, ns=(0, 0))
    assert source.open(width=1).users.x.tolist() == [[2.0], [2.0]]
    source.open(width=2)
    assert source.times == 3


def test_it_lies_where_it_is_told_to(source: Source, tmp_path: Path) -> None:
    source.open(cache=str(tmp_path / "deep" / "cache"))
    source.open(cache=str(tmp_path / "deep" / "cache"))
    assert source.times == 1
    assert (tmp_path / "deep" / "cache" / "users" / "x.npy").exists()
    assert not (tmp_path / "data.pocketfleet").exists()


def test_a_conversion_that_fails_leaves_what_was_there(source: Source, tmp_path: Path) -> None:
    source.open()
    before = sorted(path.name for path in tmp_path.rglob("*"))
    source.path.write_text("no number")
    with pytest.raises(ValueError, match="no number"):
        source.open()
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_a_folder_of_something_else_is_not_replaced(source: Source, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    with pytest.raises(InputError, match=r"mine holds something else than converted examples: set task.options.cache"):
        source.open(cache=str(tmp_path / "mine"))
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


def test_a_place_that_cannot_be_written(source: Source, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"^cannot write the converted examples to .*set task.options.cache to a folder"
    ):
        source.open(cache=str(tmp_path / "data" / "below"))


def test_every_fifth_row_is_held_back() -> None:
    assert np.flatnonzero(held_back(12)).tolist() == [4, 9]
    assert not held_back(4).any()
