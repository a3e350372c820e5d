import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import pocketfleet.training
from pocketfleet.errors import InputError
from pocketfleet.training.examples import Examples
from pocketfleet.training.task import NaturalTask, Task, check_task, initial_model, load_factory, load_task
from pocketfleet.training.tasks import packaged_tasks
from pocketfleet.training.tasks.boston import BostonTask
from pocketfleet.training.weights import Tensors


class TinyTask:
    """Two features, one target; each part can be replaced."""

    def __init__(self, **parts: Callable[..., Any]) -> None:
        self.name = "tiny"
        for name, part in parts.items():
            setattr(self, name, part)

    def make_model(self) -> nn.Module:
        return nn.Linear(2, 1)

    def loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return (output - target).square().mean(dim=1)

    def metrics(self, output: torch.Tensor, target: torch.Tensor) -> Tensors:
        return {"mae": (output - target).abs().mean(dim=1)}

    def train_examples(self) -> Examples:
        return Examples(torch.arange(10.0).reshape(5, 2), torch.ones(5, 1))

    def test_examples(self) -> Examples:
        return self.train_examples()


def checked(task: Any) -> Any:  # noqa: ANN401
    return check_task(task, initial_model(task, seed=0), task.train_examples())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working directory; what is imported from it is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    # Only what is installed can be imported, as where a user starts: no folder that has its own training/.
    installed = [entry for entry in sys.path if entry and not (Path(entry) / "training").is_dir()]
    monkeypatch.setattr(sys, "path", installed)
    for name in ("training", "export", "colorsys"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


MODULE = """
from pocketfleet.training.examples import Examples
import torch

class MyTask:
    name = "mine"
    def __init__(self, width=1):
        self.width = width
    def make_model(self):
        return torch.nn.Linear(1, self.width)
    def loss(self, output, target):
        return (output - target).square().mean(dim=1)
    def metrics(self, output, target):
        return {"mse": self.loss(output, target)}
    def train_examples(self):
        return Examples(torch.ones(3, 1), torch.ones(3, 1))
    test_examples = train_examples

make_task = MyTask
"""


# --- finding a task


@pytest.mark.parametrize("name", sorted(packaged_tasks()))
def test_a_packaged_task_has_a_module_and_a_description(name: str) -> None:
    assert callable(load_factory(f"pocketfleet.training.tasks.{name}:make_task", key="task.name"))
    assert packaged_tasks()[name]


def test_a_packaged_task_is_found_by_name_and_takes_options() -> None:
    task = load_task("boston", {"leave_out_b": True})
    assert isinstance(task, BostonTask)
    assert task.train_examples().x.shape[1] == 12


def test_a_users_task_is_found_in_the_working_directory(folder: Path) -> None:
    (folder / "plaintask.py").write_text(MODULE)
    task = load_task("plaintask:make_task", {"width": 4})
    assert type(task).__name__ == "MyTask"
    assert initial_model(task, seed=0).weight.shape == (4, 1)


def test_a_task_may_lie_in_a_package_beside_folders_named_as_ours(folder: Path) -> None:
    for package in ("mypackage", "training", "export"):
        (folder / package).mkdir()
        (folder / package / "__init__.py").write_text("")
    (folder / "training" / "task.py").write_text("WIDTH = 7")
    (folder / "export" / "widths.py").write_text("HEIGHT = 2")
    (folder / "mypackage" / "mytask.py").write_text(
        MODULE + "\nfrom training.task import WIDTH\nfrom export.widths import HEIGHT\n"
        "def wide_task():\n    return MyTask(WIDTH * HEIGHT)\n"
    )
    task = load_task("mypackage.mytask:wide_task")
    # Their modules are theirs (7 * 2 outputs), and ours are still ours.
    assert initial_model(task, seed=0).weight.shape == (14, 1)
    assert Path(sys.modules["training.task"].__file__ or "") == folder / "training" / "task.py"
    assert pocketfleet.training.task.load_task is load_task


def test_the_working_directory_is_searched_last_and_listed_once(folder: Path) -> None:
    (folder / "colorsys.py").write_text("raise RuntimeError('the working directory came first')")
    (folder / "plainer.py").write_text("x = y = 1")
    assert load_factory("colorsys:rgb_to_hsv", key="task.name")(0.0, 0.0, 1.0) == (2 / 3, 1.0, 1.0)
    assert (load_factory("plainer:x", key="task.name"), load_factory("plainer:y", key="task.name")) == (1, 1)
    assert sys.path[-1] == os.getcwd()  # noqa: PTH109 - as Python writes it
    assert sys.path.count(sys.path[-1]) == 1


@pytest.mark.parametrize("name", ["cifar", "", "Boston", "pocketfleet.training.tasks.boston"])
def test_an_unknown_name(name: str) -> None:
    allowed = re.escape(
        f"""task.name must be one of {sorted(packaged_tasks())} or a path such as "my_module:make_task", got """
    )
    with pytest.raises(InputError, match=f"^{allowed}{re.escape(repr(name))}$"):
        load_task(name)


@pytest.mark.parametrize("path", [":make_task", "mytask:", ":"])
def test_a_path_without_module_or_factory(path: str) -> None:
    with pytest.raises(InputError, match=f'^task.name must be a packaged name or "module:factory", got {path!r}$'):
        load_task(path)


@pytest.mark.parametrize(
    ("path", "missing", "file"),
    [
        ("absent:make_task", "absent", "absent.py"),
        ("absent.deeper:make_task", "absent", "absent.py"),
        ("present.absent:make_task", "present.absent", "present.py"),
    ],
)
def test_a_module_that_is_not_there(folder: Path, path: str, missing: str, file: str) -> None:
    (folder / "present").mkdir()
    (folder / "present" / "__init__.py").write_text("")
    message = f"algorithm.name: no module named {missing!r} for {path!r}; start where {file} lies (searched: "
    with pytest.raises(InputError, match=f"^{re.escape(message)}.*{re.escape(str(folder))}") as info:
        load_factory(path, key="algorithm.name")
    assert isinstance(info.value.__cause__, ModuleNotFoundError)


@pytest.mark.parametrize(
    ("text", "failure"),
    [
        ("import absent_dependency", "ModuleNotFoundError: No module named 'absent_dependency'"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("def make_task(:", "SyntaxError: "),
    ],
)
def test_a_module_that_fails_when_imported(folder: Path, text: str, failure: str) -> None:
    (folder / "broken_module.py").write_text(text)
    with pytest.raises(InputError, match=f"^task.name: importing 'broken_module' failed: {re.escape(failure)}"):
        load_task("broken_module:make_task")


def test_a_module_without_the_factory(folder: Path) -> None:
    (folder / "without_factory.py").write_text("make_tusk = None")
    with pytest.raises(InputError, match=r"^task.name: module 'without_factory' has no 'make_task'$"):
        load_task("without_factory:make_task")


def test_options_that_the_factory_rejects() -> None:
    message = "task 'boston' could not be made with options {'colour': 1}: "
    with pytest.raises(InputError, match=f"^{re.escape(message)}.*unexpected keyword argument 'colour'"):
        load_task("boston", {"colour": 1})


def test_a_value_that_the_factory_rejects(folder: Path) -> None:
    (folder / "picky.py").write_text("def make_task(width):\n    raise ValueError('width must be even')")
    message = "task 'picky:make_task' could not be made with options {'width': 3}: ValueError: width must be even"
    with pytest.raises(InputError, match=f"^{re.escape(message)}$") as info:
        load_task("picky:make_task", {"width": 3})
    assert isinstance(info.value.__cause__, ValueError)


@pytest.mark.parametrize("part", ["loss", "make_model", "metrics", "name", "test_examples", "train_examples"])
def test_what_lacks_a_part_is_no_task(folder: Path, part: str) -> None:
    # One module a part: a module is imported once.
    (folder / f"without_{part}.py").write_text(f"class Partly:\n    {part} = None\n\nmake_task = Partly\n")
    lacking = [name for name in vars(TinyTask) if not name.startswith("_") and name != part]
    lacking = sorted([*lacking, "name"] if part != "name" else lacking)
    message = f"'without_{part}:make_task' returned Partly, which is no task: it lacks {lacking}"
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        load_task(f"without_{part}:make_task")


def test_natural_tasks_name_each_devices_examples() -> None:
    assert isinstance(TinyTask(), Task)
    assert not isinstance(TinyTask(), NaturalTask)
    assert isinstance(TinyTask(device_examples=lambda _: None), NaturalTask)


# --- initial weights


def test_initial_weights_are_drawn_by_the_seed_alone() -> None:
    one = initial_model(TinyTask(), seed=3).weight
    torch.rand(7)  # moves torch's global generator
    again, other = (initial_model(TinyTask(), seed=seed).weight for seed in (3, 4))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_torchs_global_generator_is_left_as_it_was() -> None:
    before = torch.get_rng_state()
    initial_model(TinyTask(make_model=lambda: nn.Linear(50, 50)), seed=3)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_model_is_a_module() -> None:
    with pytest.raises(
        InputError, match=r"^make_model of task 'tiny' must return a torch.nn.Module, got builtin_function_or_method$"
    ):
        initial_model(TinyTask(make_model=lambda: abs), seed=0)


# --- checking a task


def test_a_sound_task_gives_its_weights() -> None:
    task = TinyTask()
    model = initial_model(task, seed=0)
    weights = check_task(task, model, task.train_examples())
    assert sorted(weights.trainable) == ["bias", "weight"]
    assert torch.equal(weights.trainable["weight"], model.weight.detach())
    assert model.weight.grad is None


@pytest.mark.parametrize("rows", [1, 2, 3, 5])
def test_any_number_of_examples_will_do(rows: int) -> None:
    sizes = []

    def loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        sizes.append(len(target))
        return TinyTask().loss(output, target)

    task = TinyTask(loss=loss)
    check_task(task, task.make_model(), task.train_examples().take(torch.arange(rows)))
    # A few are enough: three at most.
    assert set(sizes) == {min(rows, 3)}


def test_a_scalar_mean_loss_is_accepted() -> None:
    weights = checked(TinyTask(loss=nn.functional.mse_loss))
    assert sorted(weights.trainable) == ["bias", "weight"]


def test_a_task_without_examples() -> None:
    task = TinyTask()
    with pytest.raises(InputError, match=r"^task 'tiny' has no training examples$"):
        check_task(task, task.make_model(), Examples(torch.zeros(0, 2), torch.zeros(0, 1)))


def test_a_model_that_does_not_accept_the_examples() -> None:
    with pytest.raises(InputError, match=r"does not accept the task's examples, a batch of shape \(3, 2\)"):
        checked(TinyTask(make_model=lambda: nn.Linear(3, 1)))


@pytest.mark.parametrize(
    ("loss", "got"),
    [
        (lambda output, target: (output - target).square(), r"\(3, 1\)"),
        (lambda output, target: (output - target).square().mean(dim=0, keepdim=True), r"\(1, 1\)"),
        (lambda output, target: (output - target).square().flatten()[:2], r"\(2,\)"),
        (lambda output, target: (output - target).square().mean().item(), "float"),
    ],
)
def test_a_loss_of_the_wrong_shape(loss: Callable[..., Any], got: str) -> None:
    wanted = re.escape("must return one value an example, shape (3,) for a batch of 3, or their mean, shape ()")
    with pytest.raises(InputError, match=rf'^the loss of task \'tiny\' {wanted}; got {got}\. .* reduction="none"'):
        checked(TinyTask(loss=loss))


def test_a_loss_that_fails() -> None:
    with pytest.raises(
        InputError,
        match=r"^the loss of task 'tiny' fails on an output of shape \(3, 1\) and targets of shape \(3, 1\): ",
    ) as info:
        checked(TinyTask(loss=lambda output, target: output @ target))
    assert isinstance(info.value.__cause__, RuntimeError)


def test_a_loss_without_a_gradient() -> None:
    with pytest.raises(InputError, match=r"^the loss of task 'tiny' has no gradient: "):
        checked(TinyTask(loss=lambda output, target: (output > target).float().mean(dim=1)))


@pytest.mark.parametrize("metrics", [None, [("mae", torch.zeros(3))]])
def test_metrics_that_are_no_tensors_by_name(metrics: Any) -> None:  # noqa: ANN401
    with pytest.raises(InputError, match=r"^metrics of task 'tiny' must return tensors by name, got "):
        checked(TinyTask(metrics=lambda *_: metrics))


@pytest.mark.parametrize(
    ("value", "got"),
    [(torch.zeros(()), r"\(\)"), (torch.zeros(3, 1), r"\(3, 1\)"), (torch.zeros(2), r"\(2,\)"), (0.5, "float")],
)
def test_a_metric_of_the_wrong_shape(value: Any, got: str) -> None:  # noqa: ANN401
    message = rf"^metric 'late' of task 'tiny' must hold one value an example, shape \(3,\), got {got}$"
    with pytest.raises(InputError, match=message):
        checked(TinyTask(metrics=lambda *_: {"early": torch.zeros(3), "late": value}))


def test_metrics_that_fail() -> None:
    with pytest.raises(
        InputError,
        match=r"^the metrics of task 'tiny' fail on an output of shape \(3, 1\) and targets of shape \(3, 1\): ",
    ):
        checked(TinyTask(metrics=lambda output, target: {"bad": output @ target}))
