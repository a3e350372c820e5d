"""A device's examples: inputs and targets as two tensors with one row an example."""

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch

from pocketfleet.errors import InputError

__all__ = ["ExampleDataset", "Examples", "as_examples"]


@runtime_checkable
class ExampleDataset(Protocol):
    """A map-style dataset: ``dataset[i]`` is ``(x, y)``, as in ``torch.utils.data.Dataset``."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Any: ...  # noqa: ANN401 - (x, y) of whatever the dataset holds


@dataclass(frozen=True, slots=True)
class Examples:
    """``x`` is ``[examples, ...]`` and ``y`` is ``[examples, ...]``; both hold one row an example."""

    x: torch.Tensor
    y: torch.Tensor

    def __post_init__(self) -> None:
        for side, value in (("x", self.x), ("y", self.y)):
            if not isinstance(value, torch.Tensor):
                raise InputError(
                    f"examples need one tensor each of inputs and targets, got {side} = {type(value).__name__}: put "
                    "several into one tensor, and take it apart in a module around your model, or in the loss"
                )
        if self.x.dim() == 0 or self.y.dim() == 0 or len(self.x) != len(self.y):
            raise InputError(
                f"examples need as many inputs as targets, got x of shape {tuple(self.x.shape)} and y of shape "
                f"{tuple(self.y.shape)}: give both one row an example"
            )

    def __len__(self) -> int:
        return len(self.x)

    def take(self, indices: torch.Tensor) -> "Examples":
        """The rows named by ``indices`` (``int64``, of any shape), in that order."""
        # Copies row by row; indexing goes element by element, which takes three times as long.
        flat = indices.flatten()
        return Examples(
            *(side.index_select(0, flat).reshape(*indices.shape, *side.shape[1:]) for side in (self.x, self.y))
        )


def as_examples(source: "Examples | ExampleDataset", *, what: str) -> Examples:
    """Turn ``Examples`` or any map-style dataset of ``(x, y)`` pairs into ``Examples``.

    Raises:
        InputError: ``source`` is neither, or its items do not stack; ``what`` names it in the message.
    """
    if isinstance(source, Examples):
        return source
    if not isinstance(source, ExampleDataset):
        raise InputError(
            f"{what} must return Examples(x, y) or a map-style dataset of (x, y) pairs, got {type(source).__name__}"
        )
    try:
        pairs = [source[index] for index in range(len(source))]
    except Exception as exc:
        raise InputError(f"{what}: the dataset fails to give its items: {type(exc).__name__}: {exc}") from exc
    for pair in pairs[:1]:
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            kind = f"a dict with the keys {sorted(pair)}" if isinstance(pair, dict) else f"{type(pair).__name__}"
            raise InputError(f"{what}: the dataset's items must be pairs (x, y), got {kind}: return two tensors")
    try:
        x, y = (torch.stack([torch.as_tensor(pair[side]) for pair in pairs]) for side in (0, 1))
    except (TypeError, ValueError, IndexError, RuntimeError) as exc:
        raise InputError(f"{what}: the items' x and y must be numbers or tensors of one shape: {exc}") from exc
    return Examples(x, y)
