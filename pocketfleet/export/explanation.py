"""Why a bundle's training step costs what it costs, and the smallest change with which it fits a memory.

1. Layers are ranked by their share of the step's floating-point operations.
2. *A smaller batch*: memory is nearly linear in the batch. A line through batch 1 and the largest one proposes a batch,
   which is exported anew, and made smaller by one until it fits.
3. *A freeze*: modules are frozen from the input on, for what lies behind the last trained module needs no gradient and
   keeps no activations. Bisection over how many; each trial is exported anew, without its gate.

What is found is thus measured on files, not estimated. Memory is ``Footprint.training_memory_bytes``.
"""

import dataclasses
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from pocketfleet.errors import InputError
from pocketfleet.export.bundle import Bundle
from pocketfleet.export.bundle_writer import footprint_of
from pocketfleet.export.footprint import Footprint
from pocketfleet.export.plan import Plan, make_plan
from pocketfleet.export.session import Runtime
from pocketfleet.training.adaptation import Adaptation
from pocketfleet.training.task import Task

__all__ = ["Explanation", "Freeze", "LayerCost", "explain_bundle", "layer_costs"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerCost:
    """One layer's part of a training step at the largest batch."""

    layer: str
    operators: int
    flops: int
    bytes: int
    flops_ratio: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Freeze:
    """Frozen modules, in the order of the model, the patterns that train the rest, and the memory that this takes."""

    frozen: tuple[str, ...]
    trainable: tuple[str, ...]
    training_memory_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What a step costs on one runtime, and what makes it fit.

    Attributes:
        layers: the dearest first.
        training_memory_bytes: as exported.
        fits: whether that is within the memory asked for.
        batch: the largest batch that fits, with its memory; ``None`` where not even one example does.
        freeze: the smallest freeze that fits at the bundle's batch; ``None`` where none does, or no task is at hand.
        by_batch: memory at batches of one, of half the largest and of the largest: batch and bytes.
    """

    runtime: Runtime
    layers: tuple[LayerCost, ...]
    training_memory_bytes: int
    fits: bool
    batch: tuple[int, int] | None
    freeze: Freeze | None
    by_batch: tuple[tuple[int, int], ...]


def layer_costs(footprint: Footprint) -> tuple[LayerCost, ...]:
    """Costs of the training step by layer, the dearest first."""
    whole = sum(cost.flops[1] for cost in footprint.operators["train_step"])
    totals: dict[str, tuple[int, int, int]] = {}
    for cost in footprint.operators["train_step"]:
        count, flops, moved = totals.get(cost.layer, (0, 0, 0))
        totals[cost.layer] = (count + 1, flops + cost.flops[1], moved + cost.bytes[1])
    costs = [
        LayerCost(layer=layer, operators=count, flops=flops, bytes=moved, flops_ratio=flops / max(whole, 1))
        for layer, (count, flops, moved) in totals.items()
    ]
    return tuple(sorted(costs, key=lambda cost: (cost.flops, cost.bytes), reverse=True))


def explain_bundle(bundle: Bundle, task: Task, *, runtime: Runtime, memory_bytes: int) -> Explanation:
    """Rank the layers, and look for the smallest change that fits ``memory_bytes``.

    Args:
        bundle: as exported.
        task: what it was exported from, before any adaptation.
        runtime: whose memory is meant; one of the bundle's.
        memory_bytes: what a training step may take, above 0.

    Raises:
        InputError: the memory is no positive number, or the bundle lacks the runtime.
    """
    if memory_bytes <= 0:
        raise InputError(f"memory must be above 0 bytes, got {memory_bytes}")
    footprint = bundle.footprint(runtime)
    fits = footprint.training_memory_bytes <= memory_bytes
    plan = _plan(bundle, task, bundle.adaptation, runtime)

    def memory_of(changed: Plan) -> int:
        with tempfile.TemporaryDirectory() as folder:
            return footprint_of(changed, runtime, Path(folder)).training_memory_bytes

    whole = footprint.training_memory_bytes
    by_batch = {
        size: whole if size == bundle.max_batch else memory_of(dataclasses.replace(plan, max_batch=size))
        for size in sorted({1, (bundle.max_batch + 1) // 2, bundle.max_batch})
    }
    return Explanation(
        runtime=runtime,
        layers=layer_costs(footprint),
        training_memory_bytes=whole,
        fits=fits,
        batch=(bundle.max_batch, whole) if fits else _largest_batch(plan, memory_of, by_batch, memory_bytes),
        freeze=None
        if fits
        else _smallest_freeze(
            plan,
            lambda adaptation: memory_of(_plan(bundle, task, adaptation, runtime)),
            memory_bytes,
        ),
        by_batch=tuple(by_batch.items()),
    )


def _plan(bundle: Bundle, task: Task, adaptation: Adaptation, runtime: Runtime) -> Plan:
    return make_plan(
        task,
        settings=bundle.settings,
        hyper=bundle.hyper,
        max_batch=bundle.max_batch,
        adaptation=adaptation,
        only=runtime,
        convolution=bundle.manifest.convolution if runtime == "executorch" else None,
    )


def _largest_batch(
    plan: Plan, memory_of: Callable[[Plan], int], by_batch: Mapping[int, int], memory_bytes: int
) -> tuple[int, int] | None:
    """Rule 2; the memory at the plan's own batch is too much."""
    one, at_most = by_batch[1], by_batch[plan.max_batch]
    if one > memory_bytes:
        return None
    slope = (at_most - one) / (plan.max_batch - 1)
    batch = max(1, min(plan.max_batch - 1, int(1 + (memory_bytes - one) / slope)))
    while batch > 1:
        found = memory_of(dataclasses.replace(plan, max_batch=batch))
        if found <= memory_bytes:
            return batch, found
        batch -= 1
    return 1, one


def _smallest_freeze(plan: Plan, memory_of: Callable[[Adaptation], int], memory_bytes: int) -> Freeze | None:
    """Rule 3, over the modules that hold what the plan trains; the last one always stays trainable."""
    names = [name for name, parameter in plan.model.named_parameters() if parameter.requires_grad]
    modules = list(dict.fromkeys(name.rpartition(".")[0] for name in names))

    def trial(count: int) -> Freeze:
        kept = tuple(name for name in names if name.rpartition(".")[0] not in modules[:count])
        frozen = [name for name in names if name not in kept]
        adaptation = Adaptation(trainable=_patterns(kept, frozen), lora_rank=plan.adaptation.lora_rank)
        return Freeze(
            frozen=tuple(modules[:count]), trainable=adaptation.trainable, training_memory_bytes=memory_of(adaptation)
        )

    low, high, best = 1, len(modules) - 1, None
    while low <= high:
        middle = (low + high) // 2
        found = trial(middle)
        if found.training_memory_bytes <= memory_bytes:
            best, high = found, middle - 1
        else:
            low = middle + 1
    return best


def _patterns(kept: Sequence[str], frozen: Sequence[str]) -> tuple[str, ...]:
    """Patterns that match the kept names and no frozen one: whole modules where they can."""
    patterns = []
    for name in kept:
        module = f"{name.rpartition('.')[0]}.*"
        patterns.append(name if any(fnmatchcase(other, module) for other in frozen) else module)
    return tuple(dict.fromkeys(patterns))
