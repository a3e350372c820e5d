from pathlib import Path

import pandas as pd
import pytest

from pocketfleet.errors import InputError
from pocketfleet.training.task import check_task, initial_model, load_task
from pocketfleet.training.tasks.device_files import make_task


def table(rows: int, *, add: int = 0) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "size": [float(row + add) for row in range(rows)],
            "floor": list(range(rows)),
            "rent": [row / 2 + add for row in range(rows)],
        }
    )


@pytest.fixture(params=["csv", "parquet"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    (tmp_path / "flats").mkdir()
    for name, rows in (("a", 6), ("b", 3), ("c", 0)):
        write(tmp_path / "flats" / f"{name}.{request.param}", table(rows, add=ord(name)))
    return tmp_path / "flats"


def write(path: Path, rows: pd.DataFrame) -> None:
    # A Parquet file keeps the types of columns without rows; a CSV has none to keep.
    if path.suffix == ".csv":
        rows.to_csv(path, index=False)
    else:
        rows.to_parquet(path, index=False)


def test_a_table_a_device_in_the_order_of_their_names(folder: Path) -> None:
    task = load_task("device_files", {"path": str(folder), "y": "rent"})
    users = task.user_examples()
    # The fifth row of six is held back; the third device has nothing.
    assert [len(users.of(device)) for device in range(3)] == [5, 3, 0]
    assert users.of(1).x.tolist() == [[98.0, 0.0], [99.0, 1.0], [100.0, 2.0]]
    assert users.of(1).y.tolist() == [[98.0], [98.5], [99.0]]
    assert task.test_examples().x.tolist() == [[101.0, 4.0]]
    check_task(task, initial_model(task, seed=0), task.train_examples())


def test_columns_and_a_test_table_of_ones_own(folder: Path) -> None:
    test = folder.parent / f"test{next(folder.iterdir()).suffix}"
    write(test, table(2))
    task = make_task(path=str(folder), x=["size"], y="floor", test=str(test), hidden=[3])
    users = task.user_examples()
    assert [len(users.of(device)) for device in range(3)] == [6, 3, 0]
    assert (users.of(0).y.tolist(), task.test_examples().x.tolist()) == ([0, 1, 2, 3, 4, 5], [[0.0], [1.0]])
    # Six floors, of which the highest is seen on a device.
    assert initial_model(task, seed=0)(users.x).shape == (9, 6)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            table(2).drop(columns="rent"),
            r"has no column 'rent', which task.options.y names; it has \['floor', 'size'\]",
        ),
        (table(2).drop(columns="size"), r"has no column 'size', which task.options.x names"),
        (
            table(2).assign(size=["large", "small"]),
            r"column 'size' must hold one number an example to stand beside others",
        ),
        (table(2).assign(rent=["much", "more"]), "'rent' must be numbers or single characters"),
        (table(2).assign(rent=[None, 1.0]), "column 'rent' has 1 missing values: fill them or drop their rows"),
        (
            table(2).assign(rent=[1, 2]),
            r"d\.\w+ has y of shape \(\) and type int64, other than the first one's, \(1,\)",
        ),
    ],
)
def test_a_malformed_table_is_named_with_its_column(folder: Path, rows: pd.DataFrame, message: str) -> None:
    kind = next(folder.iterdir()).suffix
    write(folder / f"d{kind}", rows)
    with pytest.raises(InputError, match=rf"d\{kind}.*{message}|{message}"):
        make_task(path=str(folder), y="rent")
    assert [path.name for path in folder.parent.iterdir()] == ["flats"]


def test_files_that_are_no_tables(folder: Path) -> None:
    kind = next(folder.iterdir()).suffix
    (folder / f"d{kind}").write_bytes(b"a,b\n1\n")
    with pytest.raises(InputError, match=rf"^cannot read \S*d\{kind} as a table: "):
        make_task(path=str(folder), y="rent")


def test_a_folder_of_no_tables_or_of_two_kinds(folder: Path) -> None:
    with pytest.raises(InputError, match=r"^nowhere holds no .csv and no .parquet file; task.options.path is a folder"):
        make_task(path="nowhere", y="rent")
    for kind in ("csv", "parquet"):
        write(folder / f"z.{kind}", table(1))
    with pytest.raises(InputError, match=r"holds both .csv and .parquet files: keep one kind"):
        make_task(path=str(folder), y="rent")
