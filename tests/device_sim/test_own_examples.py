from pathlib import Path

import pytest
import torch

from pocketfleet import Bundle
from pocketfleet.device_sim.own_examples import OwnExamples, read_table
from pocketfleet.errors import InputError

NAMES = [f"f{number}" for number in range(13)]


def table(path: Path, *rows: list[object], names: list[str] | None = None) -> Path:
    lines = [names or [*NAMES, "price"], *rows]
    path.write_text("".join(",".join(map(str, line)) + "\n" for line in lines))
    return path


def row(number: int) -> list[object]:
    return [*range(number, number + 13), 10.5 + number]


def test_columns_become_what_the_programs_take(tmp_path: Path, boston_bundle: Bundle) -> None:
    found = read_table(table(tmp_path / "a.csv", *map(row, range(11))))
    examples = found.examples(boston_bundle.signature)
    assert (examples.x.dtype, tuple(examples.x.shape)) == (torch.float32, (11, 13))
    assert tuple(examples.y.shape) == (11, 1)
    assert examples.x[2].tolist() == list(range(2, 15))
    assert examples.y[:, 0].tolist() == [10.5 + number for number in range(11)]
    # The fifth and the tenth are held out.
    own = OwnExamples(examples)
    assert own.held_out(0).y[:, 0].tolist() == [14.5, 19.5]
    assert len(own.training(0)) == 9
    assert found.num_held_out == 2


def test_any_column_may_be_the_target(tmp_path: Path, boston_bundle: Bundle) -> None:
    found = read_table(table(tmp_path / "a.csv", row(0)), target="f3")
    examples = found.examples(boston_bundle.signature)
    assert examples.y.tolist() == [[3.0]]
    assert examples.x[0].tolist() == [0, 1, 2, *range(4, 13), 10.5]


def test_images_are_rows_of_pixels_and_classes_whole_numbers(tmp_path: Path, mnist_bundle: Bundle) -> None:
    names = [*(f"p{number}" for number in range(784)), "digit"]
    found = read_table(table(tmp_path / "a.csv", [*[0.5] * 784, 7], names=names))
    examples = found.examples(mnist_bundle.signature)
    assert (examples.y.dtype, examples.y.tolist()) == (torch.int64, [7])
    assert tuple(examples.x.shape) == (1, *mnist_bundle.signature.train_step.inputs[_x(mnist_bundle)].sizes(1)[1:])
    broken = read_table(table(tmp_path / "b.csv", [*[0.5] * 784, 7], [*[0.5] * 784, 7.5], names=names))
    with pytest.raises(InputError, match=r"column 'digit' must hold whole numbers \(int64\), line 3 holds 7.5"):
        broken.examples(mnist_bundle.signature)


def _x(bundle: Bundle) -> int:
    return next(place for place, spec in enumerate(bundle.signature.train_step.inputs) if spec.role == "x")


def test_too_few_columns_are_told(tmp_path: Path, boston_bundle: Bundle) -> None:
    found = read_table(table(tmp_path / "a.csv", [1, 2, 3], names=["a", "b", "c"]))
    with pytest.raises(InputError, match=r"a.csv must hold 13 columns of features.*beside the target 'c'; it holds 2"):
        found.examples(boston_bundle.signature)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot read"),
        ("1,2\n3,4\n", "the first line must name the columns"),
        ("a,a\n1,2\n", "two columns or more, each once"),
        ("a\n1\n", "two columns or more"),
        ("a,b\n", "holds no examples"),
        ("a,b\n1,x\n", "column 'b' must hold numbers, got texts such as 'x'"),
        ("a,b\n1,2\n,3\n", "missing values"),
        ("a,b\n1,2\n3,inf\n", "column 'b' must hold finite numbers, line 3 holds inf"),
        ("a,b\n1,2,3\n", "cannot read"),
    ],
)
def test_a_table_is_of_numbers_with_names(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        read_table(tmp_path / "a.csv")


def test_a_file_and_a_target_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no file .*b.csv: --data names a CSV file"):
        read_table(tmp_path / "b.csv")
    with pytest.raises(InputError, match=r"has no column 'y', which --target names; it has 'f0'"):
        read_table(table(tmp_path / "a.csv", row(0)), target="y")
