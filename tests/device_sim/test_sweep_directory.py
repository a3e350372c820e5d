"""The folder of a sweep: what it takes, what it replaces, what it leaves alone."""

import json
from pathlib import Path

import pytest

from pocketfleet.device_sim.sweep_directory import SweepDirectory
from pocketfleet.errors import InputError

ROWS = [{"run": "x=1", "rounds": 3}, {"run": "x=2", "rounds": None}]


def swept(path: Path) -> None:
    with SweepDirectory.open(path, force=False, resume=False) as directory:
        directory.write({"vary": {"x": ["1", "2"]}}, ROWS)
    (path / "x=1").mkdir()
    (path / "x=1" / "experiment.toml").write_text("seed = 1")


def test_both_tables_say_the_same(tmp_path: Path) -> None:
    swept(tmp_path / "sweep")
    assert (tmp_path / "sweep" / "sweep.csv").read_text() == "run,rounds\nx=1,3\nx=2,\n"
    assert json.loads((tmp_path / "sweep" / "sweep.json").read_text()) == {"vary": {"x": ["1", "2"]}, "rows": ROWS}
    assert not list((tmp_path / "sweep").glob("*.partial"))


def test_an_earlier_sweep_is_kept_or_replaced_as_asked(tmp_path: Path) -> None:
    path = tmp_path / "sweep"
    swept(path)
    with pytest.raises(InputError, match=r"holds a sweep already: .*--resume.*--force"):
        SweepDirectory.open(path, force=False, resume=False)
    with pytest.raises(InputError, match="leave one out"):
        SweepDirectory.open(path, force=True, resume=True)
    with SweepDirectory.open(path, force=False, resume=True):
        assert (path / "x=1").is_dir()
    (path / "notes").mkdir()
    with SweepDirectory.open(path, force=True, resume=False):
        assert sorted(item.name for item in path.iterdir()) == [".lock", "notes"]


def test_force_touches_no_folder_outside(tmp_path: Path) -> None:
    path, precious = tmp_path / "sweep", tmp_path / "precious"
    swept(path)
    precious.mkdir()
    (precious / "experiment.toml").write_text("seed = 1")
    rows = [{"run": "../precious"}, {"run": str(precious)}, {"run": "."}, {"run": ".."}, {"run": ""}]
    (path / "sweep.json").write_text(json.dumps({"rows": rows}))
    (path / "experiment.toml").write_text("seed = 1")
    (tmp_path / "experiment.toml").write_text("seed = 1")
    with SweepDirectory.open(path, force=True, resume=False):
        assert (precious / "experiment.toml").is_file()
        assert (path / "x=1" / "experiment.toml").is_file()


def test_what_is_no_sweep_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    for force in (False, True):
        with pytest.raises(InputError, match="files that are no sweep"):
            SweepDirectory.open(tmp_path / "full", force=force, resume=False)
    with pytest.raises(InputError, match="holds no sweep"):
        SweepDirectory.open(tmp_path / "full", force=False, resume=True)
    with pytest.raises(InputError, match=r"thesis\.txt is a file"):
        SweepDirectory.open(tmp_path / "full" / "thesis.txt" / "x", force=False, resume=False)
    assert (tmp_path / "full" / "thesis.txt").read_text() == "mine"


def test_one_process_writes(tmp_path: Path) -> None:
    swept(tmp_path)
    with (
        SweepDirectory.open(tmp_path, force=False, resume=True),
        pytest.raises(InputError, match="another sweep is writing"),
    ):
        SweepDirectory.open(tmp_path, force=False, resume=True)
    SweepDirectory.open(tmp_path, force=False, resume=True).__exit__()


def test_a_damaged_table_replaces_nothing(tmp_path: Path) -> None:
    swept(tmp_path)
    (tmp_path / "sweep.json").write_text("{")
    with pytest.raises(InputError, match="is damaged"):
        SweepDirectory.open(tmp_path, force=True, resume=False)
    assert (tmp_path / "x=1").is_dir()
