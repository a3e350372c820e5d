"""A step as the list of its operators: recorded once for inputs of some shapes, then replayed.

What autograd, ``functional_call`` and ``torch.vmap`` do around the operators takes a sixth of a small convolutional
network's step and half of a linear model's. The operators are the very same, and so are the bits.

1. Inputs are told apart by shape, type and how they lie in memory: kernels depend on all three.
2. The first time the step itself is called, the second time it is recorded while it runs (``recorder``), the third time
   the recording is tried beside it. From then on it is replayed if the trial gave the same bits; a step that
   is not recordable, or whose Python goes on by what values it sees, stays as it is.
3. ``compiled`` hands the step to torch's compiler in place of recording it, at the first call.
"""

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Protocol

import torch

from pocketfleet.training.recorder import Recorder, Recording
from pocketfleet.training.step_settings import Hyper
from pocketfleet.training.torch_compiler import compiled_function
from pocketfleet.training.train_step import TrainState

__all__ = ["EagerStep", "ReplayedStep"]

_PARTS = ("trainable", "frozen", "buffers", "optimizer_slots", "anchor", "correction")
_parts_of = attrgetter(*_PARTS)

# Programs of a hundred operators take some 50 KB each.
_MOST_RECORDED = 500

# How many inputs there are (with a mask, one more), the state's names, and shape, type and strides of each input.
_Key = tuple[object, ...]
_Flat = Callable[[Sequence[torch.Tensor]], Sequence[torch.Tensor]]


class EagerStep(Protocol):
    """A step without draws: the loss before it, and the next state."""

    def __call__(
        self, state: TrainState, x: torch.Tensor, y: torch.Tensor, mask: torch.Tensor | None, hyper: Hyper
    ) -> tuple[torch.Tensor, TrainState]:
        """``mask`` is of padded batches."""
        ...


class ReplayedStep:
    """Calls a step a few times for inputs of the same shapes, then replays it.

    Args:
        eager: the step.
        laid: gives a tensor in the one way in which it shall lie in memory, whatever way it came in.
        compiled: hand the step to torch's compiler, at the first call; ``compiler_failure`` tells whether it works
            here.
    """

    def __init__(
        self,
        eager: EagerStep,
        *,
        laid: Callable[[torch.Tensor], torch.Tensor] = torch.Tensor.contiguous,
        compiled: bool = False,
    ) -> None:
        self._eager = eager
        self._laid = laid
        self._compiled = compiled
        # By the inputs' shapes: seen once; recorded, if that was possible; tried.
        self._seen: set[_Key] = set()
        self._recorded: dict[_Key, Recording | None] = {}
        self._programs: dict[_Key, _Flat] = {}

    @property
    def num_programs(self) -> int:
        """How many shapes of inputs are replayed."""
        return len(self._programs)

    def __call__(
        self, state: TrainState, x: torch.Tensor, y: torch.Tensor, mask: torch.Tensor | None, hyper: Hyper
    ) -> tuple[torch.Tensor, TrainState]:
        """As the step; the result is not attached to its inputs by autograd.

        Raises:
            InputError: torch's compiler cannot compile the step.
        """
        inputs = [*_tensors(state), *hyper.values(), x, y, *([] if mask is None else [mask])]
        key = _key(state, inputs)
        program = self._programs.get(key)
        if program is None:
            # What lies otherwise than ``laid`` would have it is no key of a program.
            inputs = [self._laid(value) for value in inputs]
            key = _key(state, inputs)
            program = self._programs.get(key) or self._program(
                key, self._flat(state, hyper, masked=mask is not None), inputs
            )
        loss, *values = program(inputs)
        return loss, _with_tensors(state, values)

    def _flat(self, state: TrainState, hyper: Hyper, *, masked: bool) -> _Flat:
        """The step from a list of tensors to a list of tensors."""
        count = len(_tensors(state))

        def flat(values: Sequence[torch.Tensor]) -> list[torch.Tensor]:
            named = dict(zip(hyper, values[count:], strict=False))
            x, y, *rest = values[count + len(hyper) :]
            loss, after = self._eager(_with_tensors(state, values), x, y, rest[0] if masked else None, named)
            # By the names of the state before, of which the optimizer may have changed the order.
            pairs = zip(_parts_of(state), _parts_of(after), strict=True)
            return [loss, *(ended[name] for begun, ended in pairs for name in begun)]

        return flat

    def _program(self, key: _Key, flat: _Flat, inputs: list[torch.Tensor]) -> _Flat:
        """What to call for these inputs, this time."""
        if self._compiled:
            # Inputs are told apart by identity, and before a device's first step the anchor is its weights.
            self._programs[key] = compiled_function(flat, [value.detach() for value in inputs])
            return self._programs[key]
        if key not in self._seen:
            if len(self._seen) < _MOST_RECORDED:
                self._seen.add(key)
            return flat
        if key not in self._recorded:
            return lambda values: self._record(key, flat, [value.detach() for value in values])
        recording = self._recorded[key]
        return flat if recording is None else lambda values: self._try(key, flat, recording, values)

    def _record(self, key: _Key, flat: _Flat, inputs: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
        recorder = Recorder(inputs)
        with recorder:
            results = flat(inputs)
        self._recorded[key] = recorder.recording(results)
        return results

    def _try(
        self, key: _Key, flat: _Flat, recording: Recording, inputs: Sequence[torch.Tensor]
    ) -> Sequence[torch.Tensor]:
        results = flat(inputs)
        if all(_same_bits(found, wanted) for found, wanted in zip(recording(inputs), results, strict=True)):
            self._programs[key] = recording
        else:
            self._recorded[key] = None
        return results


def _key(state: TrainState, inputs: Sequence[torch.Tensor]) -> _Key:
    names = [name for part in _parts_of(state) for name in part]
    return (len(inputs), *names, *[(value.shape, value.dtype, value.stride()) for value in inputs])


def _same_bits(found: torch.Tensor, wanted: torch.Tensor) -> bool:
    """Whether two tensors hold the same bits and lie alike in memory."""
    if (found.shape, found.dtype, found.stride()) != (wanted.shape, wanted.dtype, wanted.stride()):
        return False
    one, other = (value.reshape(-1).view(torch.uint8) for value in (found, wanted))
    return torch.equal(one, other)


def _tensors(state: TrainState) -> list[torch.Tensor]:
    return [value for part in _parts_of(state) for value in part.values()]


def _with_tensors(state: TrainState, values: Sequence[torch.Tensor]) -> TrainState:
    """The state with the first of ``values`` in the places of its tensors."""
    left = iter(values)
    parts = [dict(zip(part, left, strict=False)) if part else part for part in _parts_of(state)]
    return TrainState(**dict(zip(_PARTS, parts, strict=True)))
