"""The tables of operators that torch and executorch make anew for every method of a bundle, made once a process.

Tried with torch 2.13.0 and executorch 1.5.1. Names with a leading underscore that are used: of
``torch.export.exported_program`` and ``torch.export.decomp_utils`` ``_collect_all_valid_cia_ops``, of ``torch.ops``
``_dir``, of ``torch._C`` ``_dispatch_get_registrations_for_dispatch_key``, and the modules
``torch.onnx._internal.exporter._registration`` and ``executorch.backends.xnnpack._passes``.

A quarter of an export's time went there. The files are the same to the byte:

1. Which operators torch takes apart unless told otherwise follows from the operators registered. It is kept for as long
   as those are the same: a library that is loaded later is seen.
2. Which operators have a translation to ONNX follows from the opset and from the libraries loaded; likewise.
3. XNNPACK looks for bilinear resizing as four patterns, which it makes by four exports of its own. Every one of them
   has an ``index`` or an ``upsample`` operator in it: a graph that has neither is not searched.
"""

import functools
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.fx import GraphModule

__all__ = ["kept_operators", "kept_translations", "searched_where_found"]

# What the names of the operators of rule 3 have in them.
_RESIZING = ("index", "upsample")


@contextmanager
def kept_operators() -> Iterator[None]:
    """Trace and take programs apart by rule 1."""
    from torch.export import decomp_utils, exported_program

    name = "_collect_all_valid_cia_ops"
    with _wrapped(decomp_utils, name, _kept_operators), _wrapped(exported_program, name, _kept_operators):
        yield


@contextmanager
def kept_translations() -> Iterator[None]:
    """Translate programs to ONNX by rule 2."""
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    with _wrapped(ONNXRegistry, "from_torchlib", _kept_translations):
        yield


@contextmanager
def searched_where_found() -> Iterator[None]:
    """Hand programs to XNNPACK by rule 3."""
    from executorch.backends.xnnpack._passes import ConvertToUpsampleBilinear2d

    with _wrapped(ConvertToUpsampleBilinear2d, "call", _searched_where_found):
        yield


@contextmanager
def _wrapped(owner: Any, name: str, wrap: Callable[[Any], Any]) -> Iterator[None]:  # noqa: ANN401 - a module or a class
    # As it lies there: read from its class, a class method would come bound.
    before = vars(owner)[name]
    setattr(owner, name, wrap(before))
    try:
        yield
    finally:
        setattr(owner, name, before)


# By what follows from it, the last table of each kind: operators and libraries come, they do not go.
_tables: dict[str, tuple[Hashable, Any]] = {}


def _kept(kind: str, follows_from: Hashable, make: Callable[[], Any]) -> Any:  # noqa: ANN401 - torch's table
    known, table = _tables.get(kind, (None, None))
    if known != follows_from:
        table = make()
        _tables[kind] = (follows_from, table)
    return table


def _registered() -> Hashable:
    """The libraries that have operators, and the operators that are composed of others."""
    composed = torch._C._dispatch_get_registrations_for_dispatch_key("CompositeImplicitAutograd")
    return tuple(torch.ops._dir), tuple(composed)


def _kept_operators(collect: Callable[[], set[Any]]) -> Callable[[], set[Any]]:
    """Rule 1. Nobody changes the set: torch asks for that of its own."""
    return lambda: _kept("operators", _registered(), collect)


def _kept_translations(from_torchlib: Any) -> Any:  # noqa: ANN401 - a class method
    """Rule 2. An export without translations of its own only reads the registry."""

    def kept(cls: Any, opset_version: int) -> Any:  # noqa: ANN401 - torch's registry
        make = functools.partial(from_torchlib.__func__, cls, opset_version)
        return _kept("translations", (opset_version, _registered()), make)

    return classmethod(kept)


def _searched_where_found(search: Callable[[Any, GraphModule], Any]) -> Callable[[Any, GraphModule], Any]:
    """Rule 3, of the pass's method."""

    def call(self: Any, module: GraphModule) -> Any:  # noqa: ANN401 - executorch's pass, and its result
        from executorch.backends.xnnpack.partition.graphs import bilinear_2d

        if any(part in str(node.target) for node in module.graph.nodes for part in _RESIZING):
            return search(self, module)
        with _wrapped(bilinear_2d, "get_graphs_dict", lambda _: dict):
            return search(self, module)

    return call
