import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pocketfleet.errors import InputError
from pocketfleet.training.task import check_task, initial_model, load_task
from pocketfleet.training.tasks.arrow_dataset import make_task


def save(folder: Path, tables: Sequence[pa.Table], **state: object) -> None:
    """As ``save_to_disk`` of datasets 5.2.0 writes: one stream of record batches a file, and its name in the state."""
    folder.mkdir(parents=True)
    names = [f"data-{number:05d}-of-{len(tables):05d}.arrow" for number in range(len(tables))]
    for name, table in zip(names, tables, strict=True):
        with pa.OSFile(str(folder / name), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=4)
    written = {"_data_files": [{"filename": name} for name in names], "_fingerprint": "0", "_split": None}
    (folder / "state.json").write_text(json.dumps(written | state))


def rows(start: int, stop: int) -> pa.Table:
    """Row ``n`` is of user ``n % 3``, called so that their order by name is 2, 0, 1."""
    number = list(range(start, stop))
    return pa.table(
        {
            "who": [("b", "c", "a")[n % 3] for n in number],
            "image": pa.array([[[n, 1.0], [2.0, 3.0]] for n in number], pa.list_(pa.list_(pa.float32(), 2))),
            "label": pa.array([n % 4 for n in number], pa.int32()),
            "size": [n / 2 for n in number],
        }
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twenty rows in two files."""
    save(tmp_path / "saved", [rows(0, 11), rows(11, 20)])
    return tmp_path / "saved"


@pytest.mark.parametrize("block_rows", [1, 8, 10_000])
def test_rows_of_a_user_are_gathered_in_their_order(folder: Path, monkeypatch, block_rows: int) -> None:
    monkeypatch.setattr("pocketfleet.training.tasks.arrow_dataset._BLOCK_ROWS", block_rows)
    task = load_task("arrow_dataset", {"path": str(folder), "x": "image", "y": "label", "user": "who"})
    users = task.user_examples()
    assert users.x.shape[1:] == (2, 2)
    # Users a, b, c hold the rows 2, 5, 8, ...; 0, 3, ...; 1, 4, ...: the fifth of each, 14, 12 and 13, is held back.
    expected = [[2, 5, 8, 11, 17], [0, 3, 6, 9, 15, 18], [1, 4, 7, 10, 16, 19]]
    for user, numbers in enumerate(expected):
        assert users.of(user).x[:, 0, 0].tolist() == numbers
        assert users.of(user).y.tolist() == [n % 4 for n in numbers]
    assert task.test_examples().x[:, 0, 0].tolist() == [14, 12, 13]
    check_task(task, initial_model(task, seed=0), task.train_examples())


def test_splits_and_several_columns_of_numbers(tmp_path: Path) -> None:
    save(tmp_path / "both" / "train", [rows(0, 12)])
    save(tmp_path / "both" / "test", [rows(12, 14)])
    (tmp_path / "both" / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "test"]}))
    task = make_task(path=str(tmp_path / "both"), x=["size", "label"], y="size", hidden=[3])
    # Without a column of users all rows are one user's.
    assert len(task.user_examples()) == 1
    assert task.train_examples().x.tolist() == [[n / 2, n % 4] for n in range(12)]
    assert task.test_examples().y.tolist() == [[6.0], [6.5]]
    other = make_task(path=str(tmp_path / "both"), x="size", y="size", split="test", test_split="train", user="who")
    assert np.diff(other.user_examples().offsets).tolist() == [1, 1]
    with pytest.raises(InputError, match=r"has the splits \['train', 'test'\], and task.options.split is 'dev'$"):
        make_task(path=str(tmp_path / "both"), x="size", y="size", split="dev")


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("image", [[1.0], [1.0, 2.0]], "column 'image' has lists of 1 to 2 values; examples need one shape"),
        ("image", [None, [1.0]], "column 'image' has 1 missing values"),
        ("image", [{"bytes": b""}, {"bytes": b""}], "column 'image' holds struct.*: convert it first"),
        ("label", [0, -1], "'label' must be whole numbers from 0 to be classes"),
        ("who", [[1], [2]], r"column 'who' \(task.options.user\) must hold one name or number a row"),
    ],
)
def test_a_column_that_is_malformed(tmp_path: Path, column: str, values: list[object], message: str) -> None:
    table = {"who": [0, 0], "image": [[1.0], [2.0]], "label": [0, 1]} | {column: values}
    save(tmp_path / "saved", [pa.table(table)])
    with pytest.raises(InputError, match=rf"saved: .*{message}"):
        make_task(path=str(tmp_path / "saved"), x="image", y="label", user="who", targets="classes")
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]


def test_a_column_that_is_not_there(folder: Path) -> None:
    for option, wrong in (("x", "picture"), ("y", "lable"), ("user", "whose")):
        options = {"x": "image", "y": "label", "user": "who"} | {option: wrong}
        with pytest.raises(
            InputError, match=rf"\.arrow has no column '{wrong}', which task.options.{option} names; it has"
        ):
            make_task(path=str(folder), **options)


def test_files_that_are_missing_or_something_else(folder: Path, tmp_path: Path) -> None:
    options = {"x": "image", "y": "label"}
    with pytest.raises(
        InputError, match=r"is no data set saved to disk: it has neither state.json nor dataset_dict.json"
    ):
        make_task(path=str(tmp_path), **options)
    file = folder / "data-00001-of-00002.arrow"
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(
        InputError, match=r"^cannot read \S*data-00001-of-00002.arrow as a stream of Arrow record batches: "
    ):
        make_task(path=str(folder), **options)
    file.unlink()
    with pytest.raises(InputError, match=r"^cannot read \S*data-00001-of-00002.arrow: "):
        make_task(path=str(folder), **options)
    (folder / "state.json").write_text('{"_data_files": ["a.arrow"]}')
    with pytest.raises(InputError, match=r"state.json needs a list _data_files of objects with a filename$"):
        make_task(path=str(folder), **options)
    (folder / "state.json").write_text("[")
    with pytest.raises(InputError, match=r"^cannot read \S*state.json: "):
        make_task(path=str(folder), **options)
