"""Every way in which a family is exported: what is trained, by which optimizer, for both runtimes."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pocketfleet.export import Bundle, export_bundle
from pocketfleet.export.decompositions import Convolution
from pocketfleet.export.session import Runtime

from . import FAMILIES, Family
from .family import seeded

__all__ = ["CELLS", "OPTIMIZERS", "RANK", "SAMPLE", "SLOW_STEPS", "STEPS", "Cell", "export", "gate_steps"]

# By name, the optimizer's arguments.
OPTIMIZERS: Mapping[str, Mapping[str, Any]] = {
    "sgd": {"optimizer": "sgd"},
    "momentum": {"optimizer": "sgd", "momentum": 0.9, "nesterov": True, "weight_decay": 1e-3},
    "adam": {"optimizer": "adam"},
    "adamw": {"optimizer": "adamw", "weight_decay": 1e-2},
}
# Of LoRA's two factors.
RANK = 4
# Training steps of the gate, fewer for the models of real size.
STEPS, SLOW_STEPS = 20, 5


@dataclass(frozen=True, slots=True)
class Cell:
    """One family, trained in one mode by one optimizer."""

    family: Family
    mode: str
    optimizer: str

    def __str__(self) -> str:
        return f"{self.family.name}-{self.mode}-{self.optimizer}"


def export(cell: Cell, out: Path, *, seed: int = 0, only: Runtime | None = None) -> Bundle:
    """The cell's bundle at ``out``, from the initial weights of ``seed``, for both runtimes or one."""
    family = cell.family
    modes: Mapping[str, Mapping[str, Any]] = {
        "full": {},
        "head": {"trainable": family.head},
        "lora": {"lora_rank": RANK},
    }
    batch = family.make_batch(family.batch_size)
    model = seeded(family.make_model, seed=seed)
    arguments = {**modes[cell.mode], **OPTIMIZERS[cell.optimizer]}
    # Told, and not timed: that would lower every kind of convolution twice.
    convolution: Convolution | None = None if only == "onnx" else "matmul"
    return export_bundle(
        model,
        family.loss,
        batch,
        out=out,
        only=only,
        convolution=convolution,
        gate_steps=gate_steps(family),
        **arguments,
    )


def gate_steps(family: Family) -> int:
    """How many training steps of the family the gate follows."""
    return SLOW_STEPS if family.slow else STEPS


# The models of real size, which take minutes each, by plain SGD only.
CELLS = tuple(
    Cell(family, mode, optimizer)
    for family in FAMILIES.values()
    for mode in family.modes
    for optimizer in OPTIMIZERS
    if optimizer == "sgd" or not family.slow
)
# What is run by default: quick ones, in every mode and under every optimizer. LoRA goes beside dense layers, which a
# model as small as this has too few of for a row of the table.
SAMPLE = (
    Cell(FAMILIES["mlp"], "lora", "adamw"),
    Cell(FAMILIES["lenet"], "full", "sgd"),
    Cell(FAMILIES["sensor_cnn"], "head", "momentum"),
    Cell(FAMILIES["matrix_factorisation"], "full", "adam"),
)
