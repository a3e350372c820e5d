import json
from pathlib import Path

import pytest
import torch

from pocketfleet.errors import InputError
from pocketfleet.training.character import codes
from pocketfleet.training.task import check_task, initial_model, load_task
from pocketfleet.training.tasks.leaf import make_task

Users = dict[str, dict[str, list[object]]]
ANNA = {"x": [[0.0, 1.0], [2.0, 3.0]], "y": [0, 1]}
BERT = {"x": [[4.0, 5.0]], "y": [2]}


def write(path: Path, of_users: Users, **changes: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = [len(data["y"]) for data in of_users.values()]
    table = {"users": list(of_users), "num_samples": samples, "user_data": of_users}
    path.write_text(json.dumps({key: value for key, value in (table | changes).items() if value is not None}))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Bert comes in the first file, Anna in the second, Carl has nothing."""
    write(tmp_path / "data" / "train" / "1.json", {"Bert": BERT, "Carl": {"x": [], "y": []}})
    write(tmp_path / "data" / "train" / "2.json", {"Anna": ANNA})
    write(tmp_path / "data" / "test" / "1.json", {"Anna": {"x": [[6.0, 7.0]], "y": [3]}, "Dora": BERT})
    return tmp_path / "data"


def test_users_in_the_order_of_files_and_all_of_test_together(folder: Path) -> None:
    task = load_task("leaf", {"path": str(folder)})
    users = task.user_examples()
    assert [users.of(user).x.tolist() for user in range(len(users))] == [BERT["x"], ANNA["x"]]
    assert [users.of(user).y.tolist() for user in range(len(users))] == [[2], [0, 1]]
    assert task.test_examples().x.tolist() == [[6.0, 7.0], [4.0, 5.0]]
    # Four classes, of which one is seen in the test part alone.
    model = initial_model(task, seed=0)
    assert model(users.x).shape == (3, 4)
    check_task(task, model, task.train_examples())


def test_shape_and_numbers(folder: Path) -> None:
    task = make_task(path=str(folder), shape=[1, 2], targets="numbers", cache=str(folder.parent / "cache"))
    assert task.user_examples().x.shape == (3, 1, 2)
    assert task.user_examples().y.tolist() == [[2.0], [0.0], [1.0]]
    assert not folder.with_name("data.pocketfleet").exists()


def test_characters_as_in_leafs_shakespeare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "leaf_model.py").write_text(
        "from torch import nn\ndef make_model():\n"
        "    return nn.Sequential(nn.Embedding(96, 4), nn.Flatten(), nn.Linear(20, 96))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    for part in ("train", "test"):
        write(tmp_path / part / "all.json", {"role": {"x": ["To be", "o be,"], "y": [",", " "]}})
    task = make_task(path=str(tmp_path), model="leaf_model:make_model", cache=str(tmp_path / "cache"))
    assert task.train_examples().x.tolist() == [codes("To be").tolist(), codes("o be,").tolist()]
    assert task.train_examples().y.tolist() == codes(", ").tolist()
    check_task(task, initial_model(task, seed=0), task.train_examples())


@pytest.mark.parametrize(
    ("users", "changes", "message"),
    [
        ({"A": ANNA}, {"users": None}, "needs a field 'users' with a JSON array, as LEAF's"),
        ({"A": ANNA}, {"user_data": []}, "needs a field 'user_data' with a JSON object"),
        ({"A": ANNA}, {"num_samples": [2, 2]}, "has 1 users and 2 num_samples"),
        ({"A": ANNA}, {"num_samples": [3]}, r"user 'A' has num_samples 3, but 2 inputs \(x\) and 2 targets \(y\)"),
        ({"A": ANNA}, {"user_data": {}}, 'user \'A\' needs user_data with lists "x" and "y"'),
        ({"Bert": BERT}, {}, "user 'Bert' comes a second time"),
        ({"A": {"x": [["a"], ["b"]], "y": [0, 1]}}, {}, "user 'A': x must be numbers, got "),
        ({"A": {"x": [[0.0]], "y": [0]}}, {}, r"user 'A' has x of shape \(1,\) .* other than the first one's, \(2,\)"),
        ({"A": {"x": [[0.0, 1.0]], "y": [0.5]}}, {}, r"user 'A' has y of shape \(1,\) and type float32, other than"),
    ],
)
def test_a_malformed_file_is_named_with_its_field(folder: Path, users: Users, changes, message: str) -> None:
    write(folder / "train" / "3.json", users, **changes)
    with pytest.raises(InputError, match=f"3.json.*{message}"):
        make_task(path=str(folder))
    # Nothing half-written.
    assert [path.name for path in folder.parent.iterdir()] == ["data"]


def test_what_is_no_json_and_no_folder(folder: Path) -> None:
    (folder / "train" / "3.json").write_text('{"users": [')
    with pytest.raises(InputError, match=r"3.json is no JSON file: "):
        make_task(path=str(folder))
    with pytest.raises(InputError, match=r"nowhere/train holds no .json file; task.options.path is a folder of LEAF's"):
        make_task(path="nowhere")


def test_a_message_names_the_file_once_through_the_task(folder: Path) -> None:
    (folder / "train" / "3.json").write_text("[]")
    with pytest.raises(InputError, match=r"^task 'leaf' could not be made with options {.*}: \S*3.json needs a field"):
        load_task("leaf", {"path": str(folder)})


def test_floats_and_integers_are_told_apart_for_train_and_test(folder: Path) -> None:
    write(folder / "test" / "1.json", {"Anna": {"x": [[6.0, 7.0]], "y": [3.5]}})
    with pytest.raises(InputError, match=r"^the test examples of task 'leaf' have y of shape \(1,\) \(torch.float32\)"):
        make_task(path=str(folder))
    assert torch.equal(make_task(path=str(folder), targets="numbers").test_examples().y, torch.tensor([[3.5]]))
