"""What the three programs take and return: each input and output by role, name, shape and type.

1. Inputs and outputs are flat, in the order of the roles below; within a role sorted by name, but ``hyper`` in the
   order of ``StepSettings.hyper_names``, ``metric`` in the order of ``evaluate`` and ``uniform`` (the numbers that
   dropout's masks are made of, ``training.dropout``) in the order of the sites:

   ============  ====================================================================  ============================
   method        inputs                                                                outputs
   ============  ====================================================================  ============================
   train_step    trainable, buffer, slot, frozen, anchor, correction, x, y, hyper,     loss, trainable, buffer, slot
                 uniform
   predict       trainable, buffer, frozen, x                                          output
   evaluate      trainable, buffer, frozen, x, y                                       loss, metric
   ============  ====================================================================  ============================

2. Of a shape only the batch is dynamic; every other dimension is a number.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

__all__ = ["BATCH", "METHODS", "MethodSignature", "Role", "Signature", "TensorSpec"]

# How a dynamic dimension is written in a shape.
BATCH: Literal["batch"] = "batch"
METHODS = ("train_step", "predict", "evaluate")

Role = Literal[
    "trainable",
    "buffer",
    "slot",
    "frozen",
    "anchor",
    "correction",
    "x",
    "y",
    "hyper",
    "uniform",
    "loss",
    "output",
    "metric",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """One input or output: what it is for, its name within that role, its shape and type.

    ``shape`` holds numbers and at most one ``"batch"``; ``dtype`` is torch's name without the prefix (``"float32"``).
    """

    __pydantic_config__: ClassVar = {"extra": "forbid", "strict": True}

    role: Role
    name: str
    shape: tuple[int | Literal["batch"], ...]
    dtype: str

    @property
    def label(self) -> str:
        """Its name in a program whose inputs are named: ``trainable/0.weight``, ``x``, ``hyper/learning_rate``."""
        return self.role if self.role == self.name else f"{self.role}/{self.name}"

    def sizes(self, batch: int) -> tuple[int, ...]:
        """The shape at one batch size."""
        return tuple(batch if size == BATCH else int(size) for size in self.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodSignature:
    """Inputs and outputs of one method, in the order in which it takes and returns them."""

    __pydantic_config__: ClassVar = {"extra": "forbid", "strict": True}

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def input_names(self, role: Role) -> tuple[str, ...]:
        """Names of the inputs of one role, in order."""
        return tuple(spec.name for spec in self.inputs if spec.role == role)

    def output_names(self, role: Role) -> tuple[str, ...]:
        """Names of the outputs of one role, in order."""
        return tuple(spec.name for spec in self.outputs if spec.role == role)


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """The signatures of the three methods."""

    __pydantic_config__: ClassVar = {"extra": "forbid", "strict": True}

    train_step: MethodSignature
    predict: MethodSignature
    evaluate: MethodSignature

    def method(self, name: str) -> MethodSignature:
        """One method's signature by its name in ``METHODS``."""
        signature: MethodSignature = getattr(self, name)
        return signature
