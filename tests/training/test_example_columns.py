import re

import numpy as np
import pytest

from pocketfleet.errors import InputError
from pocketfleet.training.character import codes
from pocketfleet.training.example_columns import check_targets, inputs, targets_of


def test_inputs_are_floats_in_the_shape_that_is_asked_for() -> None:
    assert inputs([[1, 2], [3, 4]], tokens=False, shape=[], where="x").dtype == np.float32
    assert inputs([[1, 2, 3, 4]], tokens=False, shape=[1, 2, 2], where="x").tolist() == [[[[1.0, 2.0], [3.0, 4.0]]]]
    assert inputs([1.5, 2.5], tokens=False, shape=[], where="x").tolist() == [[1.5], [2.5]]
    tokens = inputs([[1.0, 2.0]], tokens=True, shape=[], where="x")
    assert (tokens.dtype, tokens.tolist()) == (np.int64, [[1, 2]])


def test_texts_are_their_characters() -> None:
    assert inputs(["ab", "cd"], tokens=False, shape=[], where="x").tolist() == [
        codes("ab").tolist(),
        codes("cd").tolist(),
    ]
    assert targets_of(["e", "\n"], targets="auto", where="y").tolist() == [codes("e")[0], 0]


@pytest.mark.parametrize(
    ("values", "targets", "expected"),
    [
        ([1, 0], "auto", [1, 0]),
        ([True, False], "auto", [1, 0]),
        ([1.0, 0.0], "auto", [[1.0], [0.0]]),
        ([1.0, 0.0], "classes", [1, 0]),
        ([1, 0], "numbers", [[1.0], [0.0]]),
        ([[1.0, 2.0]], "auto", [[1.0, 2.0]]),
    ],
)
def test_targets(values: list[object], targets: str, expected: list[object]) -> None:
    found = targets_of(values, targets=targets, where="y")
    assert found.tolist() == expected
    assert found.dtype == (np.float32 if isinstance(expected[0], list) else np.int64)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([[1.0], [1.0, 2.0]], "f: x must have one shape in every example"),
        ([["a"]], "f: x must be numbers, got "),
        ([None, 1.0], "f: x must be numbers, got object"),
        ([{"a": 1}], "f: x must be numbers, got object"),
        ([float("nan")], "f: x must be finite numbers"),
        (["ab", "c"], "f: x must be texts of one length"),
    ],
)
def test_inputs_that_are_none(values: list[object], message: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(message)}"):
        inputs(values, tokens=False, shape=[], where="f: x")


def test_shapes_tokens_and_targets_that_do_not_fit() -> None:
    with pytest.raises(InputError, match=r"^x has 3 values an example, which task.options.shape \[2, 2\] does not fit"):
        inputs([[1, 2, 3]], tokens=False, shape=[2, 2], where="x")
    with pytest.raises(InputError, match=r"^x must be whole numbers to be tokens"):
        inputs([[1.5]], tokens=True, shape=[], where="x")
    for values in ([1.5], [-1]):
        with pytest.raises(InputError, match=r"^y must be whole numbers from 0 to be classes"):
            targets_of(values, targets="classes", where="y")
    with pytest.raises(InputError, match=r"^y must be numbers or single characters to be targets, got texts of 2"):
        targets_of(["ab"], targets="auto", where="y")
    with pytest.raises(
        InputError, match=r"^task.options.targets must be one of \['auto', 'classes', 'numbers'\], got 'x'"
    ):
        check_targets("x")
