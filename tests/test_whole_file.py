from pathlib import Path

import pytest

from pocketfleet.whole_file import sync_path, write_whole


def test_text_and_bytes_are_written_and_nothing_is_left_beside(tmp_path: Path) -> None:
    write_whole(tmp_path / "a.txt", "größer\n")
    write_whole(tmp_path / "b.bin", b"\x00\xff")
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "größer\n"
    assert (tmp_path / "b.bin").read_bytes() == b"\x00\xff"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.txt", "b.bin"]


def test_what_cannot_be_put_in_its_place_leaves_the_place_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match="taken"):
        write_whole(tmp_path / "taken", "text")
    assert (tmp_path / "taken").is_dir()


def test_what_must_survive_is_forced_to_the_disk(tmp_path: Path, monkeypatch) -> None:
    forced: list[bool] = []
    monkeypatch.setattr("os.fsync", lambda file: forced.append(bool(file)))
    write_whole(tmp_path / "a.txt", "text")
    assert forced == []
    # The file before it gets its name, and then the name.
    write_whole(tmp_path / "a.txt", "other", durable=True)
    assert len(forced) == 2
    sync_path(tmp_path)
    assert len(forced) == 3
    assert (tmp_path / "a.txt").read_text() == "other"
