from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from pocketfleet.device_sim.run_directory import Checkpoint, RunDirectory
from pocketfleet.errors import InputError


def checkpoint(value: int) -> Checkpoint:
    return Checkpoint(
        values={"value": value, "inf": float("inf")}, arrays={"a": np.arange(value)}, tensors={"t": torch.ones(value)}
    )


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[RunDirectory]:
    opened = RunDirectory.create(tmp_path / "run", "", force=False)
    yield opened
    opened.close()


def table(*values: int) -> pd.DataFrame:
    return pd.DataFrame({"value": np.array(values, dtype=np.int64)})


def test_a_checkpoint_is_read_back(directory) -> None:
    directory.write_checkpoint(0, checkpoint(3))
    found = directory.read_checkpoint(0)
    assert found.values == {"value": 3, "inf": float("inf")}
    assert found.arrays["a"].tolist() == [0, 1, 2]
    assert found.tensors["t"].tolist() == [1.0, 1.0, 1.0]


def test_the_last_two_checkpoints_are_kept(directory, tmp_path) -> None:
    assert directory.latest_number() == -1
    for number in range(4):
        directory.write_checkpoint(number, checkpoint(number))
    assert sorted(folder.name for folder in (tmp_path / "run" / "checkpoints").iterdir()) == ["000002", "000003"]
    assert directory.latest_number() == 3


def test_reopening_drops_what_the_latest_checkpoint_does_not_count_on(directory, tmp_path) -> None:
    for number in range(2):
        directory.write_parts(number, {"events": table(number), "rounds": table(), "updates": table()})
        directory.write_checkpoint(number, checkpoint(number))
    directory.write_parts(2, {"events": table(2), "rounds": table()})  # killed before its checkpoint
    (tmp_path / "run" / "parts" / "events-000003.partial").write_bytes(b"half")
    half = tmp_path / "run" / "checkpoints" / ".000002.partial"
    half.mkdir()
    (half / "values.json").write_text("{")
    directory.close()
    again = RunDirectory.reopen(tmp_path / "run")
    assert again.latest_number() == 1
    assert again.read_parts("events")["value"].tolist() == [0, 1]
    again.close()
    assert not half.exists()
    assert len(list((tmp_path / "run" / "parts").iterdir())) == 6


def reopened_and_read(path: Path) -> None:
    again = RunDirectory.reopen(path)
    try:
        again.read_checkpoint(again.latest_number())
    finally:
        again.close()


def broken(tmp_path: Path, name: str, content: bytes | None) -> str:
    """What reopening and reading says of a run with one file deleted or overwritten."""
    path = tmp_path / "run"
    directory = RunDirectory.create(path, "", force=False)
    for number in range(2):
        directory.write_parts(number, {"events": table(number), "rounds": table(), "updates": table()})
        directory.write_checkpoint(number, checkpoint(number))
    directory.close()
    (path / name).unlink() if content is None else (path / name).write_bytes(content)
    with pytest.raises(InputError) as told:
        reopened_and_read(path)
    return str(told.value)


@pytest.mark.parametrize("content", [None, b"", b"PAR1junk"])
def test_a_damaged_part_is_told_before_anything_is_computed(content: bytes | None, tmp_path: Path) -> None:
    assert "start it anew with --force" in broken(tmp_path, "parts/events-000001.parquet", content)


@pytest.mark.parametrize("content", [None, b"", b"junk"])
@pytest.mark.parametrize("file", ["arrays.npz", "values.json", "tensors.safetensors"])
def test_a_damaged_checkpoint_says_how_to_fall_back(file: str, content: bytes | None, tmp_path: Path) -> None:
    assert "delete that folder and --resume again" in broken(tmp_path, f"checkpoints/000001/{file}", content)
    # And so it is.
    for left in (tmp_path / "run" / "checkpoints" / "000001").iterdir():
        left.unlink()
    (tmp_path / "run" / "checkpoints" / "000001").rmdir()
    again = RunDirectory.reopen(tmp_path / "run")
    assert again.read_checkpoint(again.latest_number()).values["value"] == 0
    again.close()


def test_what_a_kill_leaves_of_a_new_or_a_replaced_run_can_be_replaced(tmp_path: Path) -> None:
    path = tmp_path / "run"
    path.mkdir()
    (path / ".lock").touch()
    RunDirectory.create(path, "seed = 1\n", force=False).close()
    # Deleting an earlier run takes its experiment last: whatever is left is still known for a run.
    (path / "summary.json").write_text("{}")
    (path / "plot.png").write_bytes(b"")
    deleted: list[str] = []
    unlink = Path.unlink

    def recording(self: Path, missing_ok: bool = False) -> None:
        deleted.append(self.name)
        unlink(self, missing_ok=missing_ok)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "unlink", recording)
        RunDirectory.create(path, "seed = 2\n", force=True).close()
    assert deleted == ["summary.json", "plot.png", "experiment.toml"]


def test_finish_joins_the_parts_and_writes_the_summary_last(directory, tmp_path) -> None:
    for number in range(3):
        directory.write_parts(number, {"events": table(number) if number != 1 else table()})
    assert not directory.complete
    directory.finish({"events": directory.read_parts("events")}, {"w": torch.ones(2)}, {"rounds": 3})
    assert directory.complete
    assert pd.read_parquet(tmp_path / "run" / "events.parquet")["value"].tolist() == [0, 2]
    assert not (tmp_path / "run" / "parts").exists()


def test_a_run_is_not_overwritten_without_force(tmp_path) -> None:
    path = tmp_path / "run"
    RunDirectory.create(path, "seed = 1\n", force=False).close()
    (path / "summary.json").write_text("{}")
    with pytest.raises(InputError, match=r"holds a run already.*--resume.*--force"):
        RunDirectory.create(path, "seed = 2\n", force=False)
    assert (path / "experiment.toml").read_text() == "seed = 1\n"
    RunDirectory.create(path, "seed = 2\n", force=True).close()
    assert (path / "experiment.toml").read_text() == "seed = 2\n"
    assert not (path / "summary.json").exists()


def test_force_never_deletes_what_is_no_run(tmp_path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="no run of pocketfleet"):
        RunDirectory.create(tmp_path, "", force=True)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_a_file_is_no_run_directory(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(InputError, match="is a file; name a folder"):
            RunDirectory.create(path, "", force=True)


def test_one_process_writes_at_a_time(tmp_path) -> None:
    path = tmp_path / "run"
    first = RunDirectory.create(path, "", force=False)
    for attempt in (lambda: RunDirectory.create(path, "", force=True), lambda: RunDirectory.reopen(path)):
        with pytest.raises(InputError, match="another process is writing"):
            attempt()
    first.close()
    RunDirectory.reopen(path).close()


def test_there_is_nothing_to_resume_where_no_run_is(tmp_path) -> None:
    with pytest.raises(InputError, match="holds no run"):
        RunDirectory.reopen(tmp_path)
