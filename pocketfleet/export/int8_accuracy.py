"""How far a quantised ``predict`` is from ``float32``, as a manifest holds it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

__all__ = ["Int8Accuracy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Int8Accuracy:
    """How ``predict_int8`` compares with PyTorch's ``float32`` on the same examples and weights.

    Attributes:
        examples: how many.
        output_error: norm of the outputs' difference relative to that of the ``float32`` outputs.
        float32: mean loss and mean of each metric, by name.
        int8: the same of the quantised program.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid", "strict": True}

    examples: int
    output_error: float
    float32: Mapping[str, float]
    int8: Mapping[str, float]
