"""Which module of the user's model an operator of a traced program belongs to.

1. In the forward pass: the innermost module that is running, by its path in the model; ``""`` is the model itself.
2. In the backward pass: the module whose forward pass made the node of autograd that is running.
3. What lies outside the model: ``LOSS`` (and metrics), then ``OPTIMIZER``.

The label is written into a node's ``meta["custom"]["layer"]``, which torch carries along when a graph is exported,
decomposed and lowered.

Tried with torch 2.13.0: ``torch.fx.traceback.preserve_node_meta`` and ``get_current_meta``.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.fx import Node
from torch.fx.traceback import get_current_meta, preserve_node_meta

__all__ = ["LOSS", "OPTIMIZER", "is_gradient", "label_as", "label_of", "layer_of", "tracked_layers"]

LOSS = "(loss)"
OPTIMIZER = "(optimizer)"


def label_of(node: Node) -> str | None:
    """The label of a node; ``None`` where there is none."""
    label: str | None = node.meta.get("custom", {}).get("layer")
    return label


def layer_of(node: Node) -> str:
    """The label of a node; ``""`` where there is none."""
    return label_of(node) or ""


def is_gradient(node: Node) -> bool:
    """Whether a node belongs to the backward pass of its module."""
    return bool(node.meta.get("custom", {}).get("gradient", False))


def label_as(layer: str, *, gradient: bool = False) -> None:
    """Label what is traced from here on; ``gradient`` for a module's backward pass."""
    meta = get_current_meta()
    meta["custom"] = {"layer": layer, "gradient": gradient}
    # The ONNX exporter keeps this one only.
    meta["nn_module_stack"] = {layer: (layer, nn.Module)}


@contextmanager
def tracked_layers(model: nn.Module) -> Iterator[None]:
    """Label what is traced inside this context by the modules of ``model``."""
    with ExitStack() as stack, preserve_node_meta():
        tracker = _Tracker()
        for path, module in model.named_modules():
            for handle in tracker.watch(module, path):
                stack.callback(handle.remove)
        label_as(LOSS)
        yield


class _Tracker:
    """The modules that are running, innermost last, and the nodes of autograd that have their label."""

    def __init__(self) -> None:
        self._running: list[tuple[str, set[Any]]] = []
        # Held, not only counted: a node's Python object lives no longer than it is referred to.
        self._labelled: set[Any] = set()

    def watch(self, module: nn.Module, path: str) -> list[Any]:
        def enter(_module: nn.Module, args: Any, kwargs: Any) -> None:  # noqa: ANN401 - any inputs
            self._running.append((path, _autograd_nodes((args, kwargs))))
            label_as(path)

        def leave(_module: nn.Module, _args: Any, output: Any) -> None:  # noqa: ANN401 - any inputs and outputs
            _, given = self._running.pop()
            self._label(_autograd_nodes(output), given, path)
            label_as(self._running[-1][0] if self._running else LOSS)

        return [
            module.register_forward_pre_hook(enter, with_kwargs=True),
            module.register_forward_hook(leave),
        ]

    def _label(self, ends: set[Any], given: set[Any], path: str) -> None:
        """Label the nodes between a module's inputs and its outputs that no inner module has labelled."""
        waiting, seen = list(ends - given), set(given)
        while waiting:
            node = waiting.pop()
            if node in seen:
                continue
            seen.add(node)
            # Behind what an inner module has labelled there may be more of this one's own.
            if node not in self._labelled:
                self._labelled.add(node)
                node.register_prehook(_labeller(path))
            waiting += [before for before, _ in node.next_functions if before is not None]


def _labeller(path: str) -> Callable[[Any], None]:
    def hook(_gradients: Any) -> None:  # noqa: ANN401 - a tuple of tensors
        label_as(path, gradient=True)

    return hook


def _autograd_nodes(value: Any) -> set[Any]:  # noqa: ANN401 - any inputs or outputs of a module
    leaves, _ = torch.utils._pytree.tree_flatten(value)
    return {leaf.grad_fn for leaf in leaves if isinstance(leaf, torch.Tensor) and leaf.grad_fn is not None}
