"""Fills in a template, and writes lists as a language writes them.

1. ``{{key}}`` stands for a text; where it is alone on its line, the text may have several lines, or none. A line ends
   at a line feed and nowhere else: a name may hold any other separator.
2. A line that ends in ``#?word`` or ``//?word`` is kept, without that end, where the word is asked for.
"""

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

from pocketfleet.export.signature import BATCH, Role, TensorSpec
from pocketfleet.export.snippets.inputs import StepInputs

__all__ = ["Syntax", "described", "filled", "quoted", "sizes", "task_comment", "width"]

_KEY = re.compile(r"\{\{(\w+)\}\}")
_CONDITION = re.compile(r" *(?://|#)\?(\w+)$")
_LINE_LENGTH = 100


def filled(template: str, values: Mapping[str, str], features: Collection[str]) -> str:
    """The text of ``templates/<template>.txt`` for one bundle."""
    text = resources.files(__package__).joinpath("templates", f"{template}.txt").read_text(encoding="utf-8")
    return "".join(f"{line}\n" for line in _lines(text, values, features))


def _lines(text: str, values: Mapping[str, str], features: Collection[str]) -> Iterator[str]:
    for line in text.removesuffix("\n").split("\n"):
        condition = _CONDITION.search(line)
        if condition:
            if condition[1] not in features:
                continue
            line = line[: condition.start()]
        alone = _KEY.fullmatch(line.strip())
        if alone:
            indent = line[: -len(line.lstrip())] if line.strip() != line else ""
            value = values[alone[1]]
            yield from (indent + part for part in value.split("\n") if value)
        else:
            yield _KEY.sub(lambda key: values[key[1]], line)


def quoted(text: str) -> str:
    """A string literal of Python, JavaScript and Swift."""
    return json.dumps(text, ensure_ascii=False)


def task_comment(inputs: StepInputs) -> str:
    """The task's name for a comment of one line, with a space before it."""
    return f" {json.dumps(inputs.task)}"


def sizes(spec: TensorSpec, batch: str) -> str:
    """A shape with ``batch`` in the place of the batch's size: ``n, 3, 4``."""
    return ", ".join(batch if size == BATCH else str(size) for size in spec.shape)


def width(spec: TensorSpec) -> int:
    """Values an example."""
    found = 1
    for size in spec.sizes(1):
        found *= size
    return found


def described(spec: TensorSpec) -> str:
    """Type and shape for a comment."""
    return f"{spec.dtype} [{sizes(spec, 'n')}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Syntax:
    """How a language declares lists of labels.

    Attributes:
        declaration: of a list, up to its first element, with ``{name}``.
        end: behind the last element.
        indent: of the elements.
        joined: the expression that joins lists, by their names; there may be none.
        name: of a role's list.
        quoted: a string literal.
    """

    declaration: str
    end: str
    indent: str
    joined: Callable[[Sequence[str]], str]
    name: Callable[[str], str] = str.upper
    quoted: Callable[[str], str] = quoted

    def roles(self, inputs: StepInputs) -> str:
        """A list of labels for every role that is there."""
        return "\n".join(self._declared(role, inputs.labels(role)) for role in [*inputs.state, *inputs.read_only])

    def join(self, roles: Sequence[Role]) -> str:
        """The expression for the labels of some roles."""
        return self.joined([self.name(role) for role in roles])

    def grouped(self, roles: Sequence[Role]) -> str:
        """The same, to call a method of."""
        return f"({self.join(roles)})" if len(roles) > 1 else self.join(roles)

    def lists(self, inputs: StepInputs) -> dict[str, str]:
        """What every template asks for."""
        return {
            "task": task_comment(inputs),
            "max_batch": str(inputs.max_batch),
            "roles": self.roles(inputs),
            "state": self.join(inputs.state),
            "read_only": self.join(inputs.read_only),
            "model": self.join(inputs.model),
            "model_group": self.grouped(inputs.model),
            "trained": self.join(inputs.trained),
            "trained_group": self.grouped(inputs.trained),
        }

    def _declared(self, role: Role, labels: Sequence[str]) -> str:
        lines = [self.declaration.format(name=self.name(role))]
        line = self.indent
        for label in labels:
            element = f"{self.quoted(label)}, "
            if line.strip() and len(line) + len(element) > _LINE_LENGTH:
                lines.append(line.rstrip())
                line = self.indent
            line += element
        return "\n".join([*lines, line.rstrip(), self.end])
