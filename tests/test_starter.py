"""``write_starter`` leaves three files that make a task, or none."""

import ast
from pathlib import Path

import pandas as pd
import pytest

from pocketfleet import Experiment
from pocketfleet.errors import InputError
from pocketfleet.starter import write_starter
from pocketfleet.training.task import check_task, initial_model, load_task, task_examples


def files(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted(folder.iterdir())}


def test_three_files_named_after_the_task(tmp_path: Path) -> None:
    written = write_starter("rents", tmp_path)
    assert written == [tmp_path / "rents.py", tmp_path / "rents.csv", tmp_path / "rents.toml"]
    assert list(files(tmp_path)) == ["rents.csv", "rents.py", "rents.toml"]
    assert not [name for name, text in files(tmp_path).items() if "TASK_NAME" in text]


def test_the_same_files_each_time(tmp_path: Path) -> None:
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        write_starter("rents", folder)
    assert files(tmp_path / "a") == files(tmp_path / "b")


@pytest.mark.parametrize("suffix", ["py", "csv", "toml"])
def test_a_file_that_is_there_is_kept_and_nothing_written(suffix: str, tmp_path: Path) -> None:
    (tmp_path / f"rents.{suffix}").write_text("years of work")
    with pytest.raises(InputError, match=rf"rents\.{suffix} exists already; choose another name or move it away"):
        write_starter("rents", tmp_path)
    assert files(tmp_path) == {f"rents.{suffix}": "years of work"}


@pytest.mark.parametrize("name", ["", "my-task", "my task", "2rents", "rents.py", "../rents", "a/b"])
def test_what_is_no_python_name_is_refused_and_nothing_written(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    with pytest.raises(InputError, match="must be a Python name such as mytask, got '") as told:
        write_starter(name, folder)
    assert repr(name) in str(told.value)
    assert files(tmp_path / "here") == {}
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


def test_the_module_is_python_that_defines_the_tasks_parts(tmp_path: Path) -> None:
    write_starter("rents", tmp_path)
    tree = ast.parse((tmp_path / "rents.py").read_text())
    (kind,) = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    assert kind.name == "rentsTask"
    assert {"make_model", "loss", "metrics", "train_examples", "test_examples"} <= {
        node.name for node in kind.body if isinstance(node, ast.FunctionDef)
    }
    assert [node.name for node in tree.body if isinstance(node, ast.FunctionDef)] == ["make_task"]


def test_the_table_is_400_flats_of_finite_numbers(tmp_path: Path) -> None:
    write_starter("rents", tmp_path)
    table = pd.read_csv(tmp_path / "rents.csv")
    assert list(table.columns) == ["size_m2", "age_years", "centre_km", "rent"]
    assert len(table) == 400
    # Drawn from 20 to 120 m2, 0 to 80 years, 0 to 15 km.
    assert table["size_m2"].between(20, 120).all()
    assert table["age_years"].between(0, 80).all()
    assert table["centre_km"].between(0, 15).all()
    # The rent is made of the size above all: 0.12 a square metre of noise 0.5.
    assert table["rent"].corr(table["size_m2"]) > 0.8


def test_the_experiment_is_accepted_and_its_task_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A module name of this test's own: Python imports a name once.
    write_starter("rents_of_test_starter", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    experiment = Experiment.load("rents_of_test_starter.toml")
    assert experiment.task.name == "rents_of_test_starter:make_task"
    task = load_task(experiment.task.name, experiment.task.options)
    assert task.name == "rents_of_test_starter"
    train, test = task_examples(task, "train"), task_examples(task, "test")
    # Every fifth of 400 rows is held back.
    assert (len(train), len(test)) == (320, 80)
    assert train.x.shape == (320, 3)
    weights = check_task(task, initial_model(task, seed=0), train)
    # 3-16-1: two layers of weight and bias.
    assert sum(value.numel() for value in weights.trainable.values()) == 3 * 16 + 16 + 16 + 1


@pytest.mark.parametrize(("name", "message"), [("class", "must be a Python name"), ("json", "installed module")])
def test_a_name_that_python_would_not_find_is_refused(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        write_starter(name, tmp_path)
    assert list(tmp_path.iterdir()) == []
