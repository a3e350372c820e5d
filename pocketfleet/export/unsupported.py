"""Operators that a runtime cannot do, each with the modules of the user's model that use it, and the way out in words.

Who finds them: ``executorch_refusal.py`` and ``onnx_refusal.py``.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from torch import nn
from torch.export import ExportedProgram
from torch.fx import Node

from pocketfleet.errors import InputError
from pocketfleet.export.layers import LOSS, OPTIMIZER, is_gradient, label_of
from pocketfleet.training.running_module import module_text

__all__ = ["Unsupported", "UnsupportedError", "operator_name", "unsupported", "unsupported_nodes"]

# So many modules are named; a deep model may have hundreds of one kind.
_NAMED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsupported:
    """One operator in one place.

    Attributes:
        operator: torch's name without overload (``aten.max_pool3d_with_indices``), or ONNX's (``Conv``).
        layer: the label of ``layers.py``; ``None`` where it is not known.
        gradient: whether it is part of the module's backward pass.
    """

    operator: str
    layer: str | None
    gradient: bool = False


class UnsupportedError(InputError):
    """A runtime cannot do what a model needs.

    Attributes:
        found: each operator in each place, once.
        problem: the end of a sentence: ``for which ExecuTorch 1.5.1 has no kernel``.
    """

    def __init__(self, found: Iterable[Unsupported], *, problem: str) -> None:
        self.found = tuple(dict.fromkeys(found))
        self.problem = problem
        super().__init__(f"{_sentence(self.found, str)}, {problem}")

    def sentence(self, model: nn.Module) -> str:
        """Which modules of ``model`` use which operators, and what is wrong with them."""
        return f"{_sentence(self.found, lambda layer: _place(layer, model))}, {self.problem}"

    @property
    def only_gradients(self) -> bool:
        """Whether only backward passes are in the way, so that a model that runs forward there would do."""
        return all(entry.gradient for entry in self.found)


def operator_name(target: object) -> str:
    """``aten.add`` for an overload, or for a name such as ``aten::add.out``."""
    text = target if isinstance(target, str) else str(getattr(target, "name", lambda: target)())
    space, _, name = text.rpartition("::")
    return f"{space}.{name.partition('.')[0]}" if space else name


def unsupported(node: Node) -> Unsupported:
    """The operator of a traced or lowered node, and its place."""
    return Unsupported(operator=operator_name(node.target), layer=label_of(node), gradient=is_gradient(node))


def unsupported_nodes(programs: Iterable[ExportedProgram], operators: Iterable[str]) -> list[Unsupported]:
    """Where traced programs use ``operators``, names without overload; without a place where none does."""
    wanted = list(dict.fromkeys(operators))
    found = [
        unsupported(node)
        for program in programs
        for node in program.graph.nodes
        if node.op == "call_function" and operator_name(node.target) in wanted
    ]
    known = {entry.operator for entry in found}
    return [*found, *(Unsupported(operator=name, layer=None) for name in wanted if name not in known)]


def _place(layer: str, model: nn.Module) -> str:
    if layer in {LOSS, OPTIMIZER}:
        return f"the {layer.strip('()')}"
    return module_text(model, layer)


def _sentence(found: Sequence[Unsupported], name: Callable[[str], str]) -> str:
    by_operators: dict[tuple[str, ...], list[str]] = {}
    for layer in dict.fromkeys(entry.layer for entry in found):
        operators = tuple(dict.fromkeys(entry.operator for entry in found if entry.layer == layer))
        by_operators.setdefault(operators, []).append("the model" if layer is None else name(layer))
    return "; ".join(f"{_listed(places)} {_use(places)} {' and '.join(ops)}" for ops, places in by_operators.items())


def _use(places: Sequence[str]) -> str:
    return "uses" if len(places) == 1 else "use"


def _listed(places: Sequence[str]) -> str:
    more = [f"{len(places) - _NAMED} more"] if len(places) > _NAMED else []
    return " and ".join([*places[:_NAMED], *more])
