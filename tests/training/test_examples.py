import re
from typing import Any

import pytest
import torch

from pocketfleet.errors import InputError
from pocketfleet.training.examples import ExampleDataset, Examples, as_examples


class Squares(torch.utils.data.Dataset[tuple[Any, Any]]):
    """Item ``i`` is ``([i, -i], i * i)``."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return torch.tensor([float(index), -float(index)]), index * index


class NoItems:
    def __len__(self) -> int:
        return 2


@pytest.mark.parametrize(
    ("x", "y", "shapes"),
    [
        (torch.zeros(3, 2), torch.zeros(2), "x of shape (3, 2) and y of shape (2,)"),
        (torch.tensor(1.0), torch.zeros(1), "x of shape () and y of shape (1,)"),
        (torch.zeros(1), torch.tensor(1.0), "x of shape (1,) and y of shape ()"),
    ],
)
def test_inputs_and_targets_have_one_row_an_example(x: torch.Tensor, y: torch.Tensor, shapes: str) -> None:
    with pytest.raises(InputError, match=f"as many inputs as targets, got {re.escape(shapes)}: give both one row"):
        Examples(x, y)


def test_length_is_the_number_of_rows() -> None:
    assert len(Examples(torch.zeros(3, 7), torch.zeros(3))) == 3
    assert len(Examples(torch.zeros(0, 7), torch.zeros(0))) == 0


def test_take_keeps_order_and_repeats() -> None:
    examples = Examples(torch.arange(8).reshape(4, 2), torch.arange(4) * 10)
    taken = examples.take(torch.tensor([3, 0, 3]))
    assert taken.x.tolist() == [[6, 7], [0, 1], [6, 7]]
    assert taken.y.tolist() == [30, 0, 30]


def test_examples_pass_as_they_are() -> None:
    examples = Examples(torch.zeros(2, 1), torch.zeros(2))
    assert as_examples(examples, what="train_examples") is examples


def test_a_map_style_dataset_is_stacked() -> None:
    examples = as_examples(Squares(), what="train_examples")
    assert examples.x.tolist() == [[0.0, 0.0], [1.0, -1.0], [2.0, -2.0], [3.0, -3.0]]
    assert examples.y.tolist() == [0, 1, 4, 9]
    assert examples.y.dtype == torch.int64


def test_any_object_with_length_and_items_is_a_dataset() -> None:
    pairs = [([1.0], 0), ([2.0], 1)]
    assert isinstance(pairs, ExampleDataset)
    assert not isinstance(NoItems(), ExampleDataset)
    assert as_examples(pairs, what="train_examples").x.tolist() == [[1.0], [2.0]]


@pytest.mark.parametrize(("source", "got"), [(7, "int"), (NoItems(), "NoItems"), (None, "NoneType")])
def test_what_is_neither_is_rejected_by_name(source: Any, got: str) -> None:  # noqa: ANN401
    allowed = re.escape("must return Examples(x, y) or a map-style dataset of (x, y) pairs")
    with pytest.raises(InputError, match=f"^test_examples {allowed}, got {got}$"):
        as_examples(source, what="test_examples")


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([([1.0], 0), ([1.0, 2.0], 1)], "the items' x and y must be numbers or tensors of one shape: stack expects"),
        ([("one", 0)], "the items' x and y must be numbers or tensors of one shape: "),
        ([(1.0,), (2.0,)], r"items must be pairs \(x, y\), got tuple: return two tensors"),  # no target
        ([(1.0, 2.0, 3)], r"items must be pairs \(x, y\), got tuple"),
        ([1.0, 2.0], r"items must be pairs \(x, y\), got float"),
        ([{"x": 1.0, "y": 0}], r"items must be pairs \(x, y\), got a dict with the keys \['x', 'y'\]: return two"),
    ],
)
def test_items_that_are_no_pairs_of_numbers_are_rejected(items: list[Any], message: str) -> None:
    with pytest.raises(InputError, match=f"^train_examples: .*{message}"):
        as_examples(items, what="train_examples")


def test_a_dataset_that_fails_is_told_in_its_own_words() -> None:
    class Failing:
        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> object:
            raise FileNotFoundError("images/0.png")

    with pytest.raises(InputError, match=r"fails to give its items: FileNotFoundError: images/0\.png"):
        as_examples(Failing(), what="train_examples")


def test_two_inputs_are_not_one_tensor() -> None:
    with pytest.raises(InputError, match="one tensor each of inputs and targets, got x = tuple"):
        Examples((torch.ones(2), torch.ones(2)), torch.ones(2))  # type: ignore[arg-type]
