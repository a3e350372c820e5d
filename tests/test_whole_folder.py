from pathlib import Path

import pytest

from pocketfleet.whole_folder import whole_folder


def test_a_folder_is_there_once_it_is_whole_and_takes_the_old_ones_place(tmp_path: Path) -> None:
    for text in ("first", "second"):
        with whole_folder(tmp_path / "deep" / "folder") as partial:
            (partial / text).write_text(text)
            assert not (tmp_path / "deep" / "folder" / text).exists()
        assert [path.name for path in (tmp_path / "deep" / "folder").iterdir()] == [text]
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["folder"]


def test_a_writer_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    def failing() -> None:
        with whole_folder(tmp_path / "folder") as partial:
            (partial / "half").write_text("")
            raise KeyError

    with pytest.raises(KeyError):
        failing()
    assert list(tmp_path.iterdir()) == []
    with whole_folder(tmp_path / "folder") as partial:
        (partial / "whole").write_text("")
    with pytest.raises(KeyError):
        failing()
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["whole"]
