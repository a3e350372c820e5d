"""A data set in the JSON format of LEAF: ``train/*.json`` and ``test/*.json``, one user of ``train`` one device.

Each file is an object of ``users`` (names), ``num_samples`` (how many examples each has) and ``user_data``
(``{name: {"x": [...], "y": [...]}}``). Source of the format: Caldas et al. 2018, "LEAF: a benchmark for federated
settings", arXiv:1812.01097, and the files that its scripts write. Users come in the order of the files' names, and in
a file in the order of ``users``; one without examples is left out. The test examples are those of all of ``test``.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pocketfleet.errors import InputError
from pocketfleet.training.converted import converted
from pocketfleet.training.example_columns import Column, Targets, check_targets, inputs, targets_of
from pocketfleet.training.own_data_task import own_data_task
from pocketfleet.training.user_examples_writer import UserExamplesWriter
from pocketfleet.training.users_task import UsersTask

__all__ = ["make_task"]


def make_task(
    *,
    path: str,
    shape: list[int] | None = None,
    tokens: bool = False,
    targets: Targets = "auto",
    model: str = "",
    loss: str = "",
    metrics: str = "",
    hidden: list[int] | None = None,
    cache: str = "",
) -> UsersTask:
    """The task.

    Args:
        path: the folder that holds ``train`` and ``test``.
        shape: of an example's ``x``, such as ``[1, 28, 28]``; as in the file if left out.
        tokens: ``x`` are whole numbers that a model looks up.
        targets: whether ``y`` are ``classes`` or ``numbers``; ``auto``: integers and characters are classes.
        model: see ``training.own_data_task``, as for ``loss``, ``metrics`` and ``hidden``.
        loss: likewise.
        metrics: likewise.
        hidden: likewise.
        cache: see ``training.converted``.
    """
    check_targets(targets)
    files = {part: _files(Path(path) / part) for part in ("train", "test")}

    def columns(part: str) -> Iterator[tuple[Column, Column, str]]:
        for where, x, y in _users(files[part]):
            yield (
                inputs(x, tokens=tokens, shape=shape or [], where=f"{where}: x"),
                targets_of(y, targets=targets, where=f"{where}: y"),
                where,
            )

    def convert(users: UserExamplesWriter, test: UserExamplesWriter) -> None:
        for part, writer in (("train", users), ("test", test)):
            for x, y, where in columns(part):
                writer.add(x, y, where=where)

    found = converted(
        Path(path),
        [*files["train"], *files["test"]],
        {"format": "leaf", "shape": shape, "tokens": tokens, "targets": targets},
        cache=cache,
        convert=convert,
    )
    return own_data_task("leaf", found, model=model, loss=loss, metrics=metrics, hidden=hidden)


def _files(folder: Path) -> list[Path]:
    found = sorted(folder.glob("*.json"))
    if not found:
        raise InputError(
            f"{folder} holds no .json file; task.options.path is a folder of LEAF's, with train and test in it"
        )
    return found


def _users(files: list[Path]) -> Iterator[tuple[str, list[Any], list[Any]]]:
    """Where it was found, x and y of each user who has examples."""
    seen: set[str] = set()
    for file in files:
        table = _table(file)
        for place, user in enumerate(table["users"]):
            where = f"{file}: user {user!r}"
            if user in seen:
                raise InputError(f"{where} comes a second time")
            seen.add(user)
            count, data = table["num_samples"][place], table["user_data"].get(user)
            if not isinstance(data, dict) or not isinstance(data.get("x"), list) or not isinstance(data.get("y"), list):
                raise InputError(f'{where} needs user_data with lists "x" and "y"')
            if not len(data["x"]) == len(data["y"]) == count:
                raise InputError(
                    f"{where} has num_samples {count}, but {len(data['x'])} inputs (x) and {len(data['y'])} targets (y)"
                )
            if count:
                yield where, data["x"], data["y"]


def _table(file: Path) -> dict[str, Any]:
    try:
        table = json.loads(file.read_bytes())
    except (OSError, ValueError) as exc:
        raise InputError(f"{file} is no JSON file: {exc}") from exc
    for field, kind in (("users", list), ("num_samples", list), ("user_data", dict)):
        if not isinstance(table, dict) or not isinstance(table.get(field), kind):
            raise InputError(
                f"{file} needs a field {field!r} with a JSON {'object' if kind is dict else 'array'}, as LEAF's"
            )
    if len(table["users"]) != len(table["num_samples"]):
        raise InputError(f"{file} has {len(table['users'])} users and {len(table['num_samples'])} num_samples")
    checked: dict[str, Any] = table
    return checked
