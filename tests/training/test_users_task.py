import pytest
import torch
from torch import nn

from pocketfleet.errors import InputError
from pocketfleet.training.examples import Examples
from pocketfleet.training.objective import NUMBERS
from pocketfleet.training.task import ColumnarTask, check_task, initial_model
from pocketfleet.training.user_examples import joined
from pocketfleet.training.users_task import UsersTask


def task(test: Examples) -> UsersTask:
    users = joined([Examples(torch.ones(n, 2), torch.zeros(n, 1)) for n in (1, 2)], what="user")
    return UsersTask("mine", users=users, test=test, make_model=lambda: nn.Linear(2, 1), objective=NUMBERS)


def test_it_is_a_task_over_columns() -> None:
    made = task(Examples(torch.ones(1, 2), torch.zeros(1, 1)))
    assert isinstance(made, ColumnarTask)
    check_task(made, initial_model(made, seed=0), made.train_examples())
    assert (len(made.user_examples()), len(made.train_examples()), len(made.test_examples())) == (2, 3, 1)


def test_test_examples_that_are_missing_or_unlike() -> None:
    with pytest.raises(InputError, match=r"^task 'mine' has no test examples"):
        task(Examples(torch.ones(0, 2), torch.zeros(0, 1)))
    with pytest.raises(
        InputError, match=r"^the test examples of task 'mine' have y of shape \(\) \(torch.int64\), its "
    ):
        task(Examples(torch.ones(1, 2), torch.zeros(1, dtype=torch.int64)))
