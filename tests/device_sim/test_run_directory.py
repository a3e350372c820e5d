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
        directory.write_parts(number, {"events": table(number)})
        directory.write_checkpoint(number, checkpoint(number))
    directory.write_parts(2, {"events": table(2)})  # killed before its checkpoint
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
    assert len(list((tmp_path / "run" / "parts").iterdir())) == 2


def test_finish_joins_the_parts_and_writes_the_summary_last(directory, tmp_path) -> None:
    for number in range(3):
        directory.write_parts(number, {"events": table(number) if number != 1 else table()})
    assert not directory.complete
    directory.finish({"events": directory.read_parts("events")}, {"rounds": 3})
    assert directory.complete
    assert pd.read_parquet(tmp_path / "run" / "events.parquet")["value"].tolist() == [0, 2]
    assert not (tmp_path / "run" / "parts").exists()


def test_a_run_is_not_overwritten_without_force(tmp_path) -> None:
    path = tmp_path / "run"
    RunDirectory.create(path, "seed = 1\n", force=False).close()
    (path / "summary.json").write_text("{}")
    with pytest.raises(InputError, match="holds a run already.*--resume.*--force"):
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
    with pytest.raises(InputError, match="is a file"):
        RunDirectory.create(tmp_path / "file", "", force=True)


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
