"""What a killed export leaves is removed by the next one, what a living one holds is not."""

import errno
import fcntl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from torch import nn
from toy import drawn

from pocketfleet.export import Bundle, export_bundle
from pocketfleet.export.staging import clear_stale, put, staged

EXPORT = "from pocketfleet.cli import main\nmain()"
OPTIONS = ["--out", "bundle", "--only", "onnx", "--gate-steps", "1"]
# Holds a folder until it is killed.
HOLD = """
import sys
from pathlib import Path
from pocketfleet.export.staging import staged
with staged(Path(sys.argv[1])) as folder:
    print(folder.parent, flush=True)
    sys.stdin.read()
"""


def left(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.name.startswith("."))


def export_here(folder: Path) -> Bundle:
    x, y = drawn(4, 3), drawn(4, 2, seed=1)
    return export_bundle(nn.Linear(3, 2), nn.MSELoss(), (x, y), out=folder / "bundle", only="onnx", gate_steps=1)


def test_the_next_export_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    killed = subprocess.Popen([sys.executable, "-c", EXPORT, "export", "boston", *OPTIONS], cwd=tmp_path)
    waited = threading.Event()
    while killed.poll() is None and not list(tmp_path.glob(".bundle.*/bundle/weights.safetensors")):
        waited.wait(0.01)
    killed.kill()
    # By SIGKILL, not by its end.
    assert killed.wait() == -9
    assert len(left(tmp_path)) == 1
    bundle = export_here(tmp_path)
    assert list(tmp_path.iterdir()) == [bundle.path]


@contextmanager
def holder(out: Path) -> Iterator[tuple["subprocess.Popen[str]", Path]]:
    """Another process in the middle of an export, and its folder."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(out)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield process, Path(process.stdout.readline().strip())
        finally:
            process.kill()


def test_an_export_leaves_a_living_one_alone(tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    with holder(out) as (process, held), staged(out) as own:
        export_here(tmp_path)
        assert left(tmp_path) == sorted([held, own.parent])
        process.kill()
        process.wait()
        clear_stale(out)
        assert left(tmp_path) == [own.parent]
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def stale(out: Path) -> Path:
    """A folder whose writer is gone."""
    folder = out.parent / f".{out.name}.abcdefgh"
    (folder / "bundle").mkdir(parents=True)
    (folder / "bundle" / "weights.safetensors").write_bytes(b"half")
    (folder / "writer.lock").touch()
    return folder


def test_only_folders_of_the_same_place_that_have_a_lock_are_stale(tmp_path: Path) -> None:
    out = tmp_path / "a.b"
    kept = [stale(tmp_path / name) for name in ("a", "a.b.c", "axb")]
    (tmp_path / ".a.b.settings").mkdir()
    (tmp_path / ".a.b.linked__").symlink_to(kept[0])
    before = left(tmp_path)
    gone = stale(out)
    clear_stale(out)
    assert not gone.exists()
    assert left(tmp_path) == before


def test_a_killed_replacement_gives_the_old_bundle_back(tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    folder = stale(out)
    (folder / "bundle").rename(folder / "old")
    clear_stale(out)
    assert [path.name for path in out.iterdir()] == ["weights.safetensors"]
    assert left(tmp_path) == []
    # One that was killed after the new bundle was in place.
    folder = stale(out)
    (folder / "bundle" / "weights.safetensors").write_bytes(b"older")
    (folder / "bundle").rename(folder / "old")
    clear_stale(out)
    assert (out / "weights.safetensors").read_bytes() == b"half"
    assert left(tmp_path) == []


def test_a_bundle_is_as_open_as_any_folder(tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    (tmp_path / "other").mkdir()
    for content in ("first", "second"):
        with staged(out) as folder:
            (folder / "file").write_text(content)
            put(folder, out)
        assert (out / "file").read_text() == content
    assert out.stat().st_mode == (tmp_path / "other").stat().st_mode
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "other"]


def test_many_writers_at_once(tmp_path: Path) -> None:
    """Each clears before and after it makes its folder, and finds its own untouched."""
    out, lost = tmp_path / "bundle", []

    def write(number: int) -> None:
        for _ in range(40):
            clear_stale(out)
            with staged(out) as folder:
                (folder / "file").write_text(str(number))
                clear_stale(out)
                if (folder / "file").read_text() != str(number):
                    lost.append(number)

    failures: list[object] = []
    before, threading.excepthook = threading.excepthook, failures.append
    try:
        threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        threading.excepthook = before
    assert (failures, lost, list(tmp_path.iterdir())) == ([], [], [])


def test_without_locks_nothing_is_taken_for_stale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "bundle"

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSYS, "no locks here")

    monkeypatch.setattr(fcntl, "flock", refuse)
    folder = stale(out)
    clear_stale(out)
    with staged(out) as own:
        assert not (own.parent / "writer.lock").exists()
        assert left(tmp_path) == sorted([folder, own.parent])
        monkeypatch.undo()
        clear_stale(out)
        assert left(tmp_path) == [own.parent]
    assert left(tmp_path) == []
