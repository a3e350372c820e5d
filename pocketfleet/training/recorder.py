"""One call of a function of tensors as the list of its operators, which can be carried out again for other tensors.

1. Operators are seen below autograd and ``torch.vmap``: what these make of a function, forward and backward, is a
   sequence of operators on plain tensors. A ``Recording`` carries out the same ones, in the same order.
2. A tensor is an input, what an operator gave, or a constant: one that came from elsewhere, such as a model's own.
3. ``detach`` and its like, which give another name to a tensor, are left out, and operators whose results nobody
   uses, unless they write to a tensor in place. A tensor is let go after its last use.
4. Not recordable, by reason: an operator that draws random numbers; one whose result is a number or of a size that
   depends on values, since Python may go on by it unseen; one that writes to an input or to a constant, or changes a
   tensor's shape in place.
5. What Python itself computes from values (``.numpy()``) stays unseen: whoever replays makes a trial first.

Tried with torch 2.13.0: ``torch.utils._python_dispatch.TorchDispatchMode``, ``torch._ops.OpOverload._op``.
"""

from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from operator import itemgetter
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

__all__ = ["Recorder", "Recording"]

aten = torch.ops.aten
_RENAMING = {aten.detach.default, aten.alias.default, aten.lift_fresh.default}
# Tagged for more than they do here: the first for its dropout, which it does not support on a CPU (torch takes another
# way there); the second for masks among its indices, which are looked for.
_TAGGED = {aten._scaled_dot_product_flash_attention_for_cpu.default, aten.index.Tensor}
_MASKS = {torch.bool, torch.uint8}
_REFUSED = {
    torch.Tag.nondeterministic_seeded: "draws random numbers",
    torch.Tag.data_dependent_output: "gives a number that depends on values",
    torch.Tag.dynamic_output_shape: "gives a tensor of a size that depends on values",
    torch.Tag.inplace_view: "changes a tensor's shape in place",
}
# What batch norm writes to without its schema telling.
_WRITTEN_UNTOLD = {"running_mean", "running_var"}


@dataclass(frozen=True, slots=True)
class _Call:
    """An operator, the slots of its arguments and of its result, and whether it writes to an argument."""

    operator: Callable[..., Any]
    arguments: tuple[int, ...]
    result: int
    writes: bool


class Recording:
    """Replays what was recorded; ``num_operators`` counts what one go carries out.

    Args:
        calls: in order; dead ones are left out.
        constants: by slot, tensors and all else that operators take.
        num_inputs: these are in the first slots.
        outputs: slots of the results.
    """

    def __init__(
        self, calls: Sequence[_Call], constants: Mapping[int, Any], *, num_inputs: int, outputs: Sequence[int]
    ) -> None:
        living = list(_living(calls, set(outputs)))
        self._outputs = tuple(outputs)
        self._num_inputs = num_inputs
        self._slots = [None] * (1 + max([num_inputs, *constants, *outputs, *(call.result for call in living)]))
        for slot, value in constants.items():
            self._slots[slot] = value
        kept = {*outputs, *constants, *range(num_inputs)}
        self._steps = list(_steps(living, kept))
        self.num_operators = len(self._steps)

    def __call__(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """The results for inputs that lie in memory as those lay that were recorded, and that require no gradient."""
        slots: list[Any] = self._slots.copy()
        slots[: self._num_inputs] = inputs
        for operator, taken, result, over in self._steps:
            slots[result] = operator(*taken(slots))
            for slot in over:
                slots[slot] = None
        return [slots[slot] for slot in self._outputs]


def _living(calls: Sequence[_Call], wanted: set[int]) -> Sequence[_Call]:
    """The calls whose results somebody uses, or which write."""
    living = []
    for call in reversed(calls):
        if call.writes or call.result in wanted:
            wanted.update(call.arguments)
            living.append(call)
    return living[::-1]


def _steps(calls: Sequence[_Call], kept: set[int]) -> Iterator[tuple[Any, Any, int, tuple[int, ...]]]:
    """Each call as its operator, what takes its arguments from the slots, its result's slot, and slots then over."""
    last = {slot: place for place, call in enumerate(calls) for slot in (call.result, *call.arguments)}
    for place, call in enumerate(calls):
        over = {slot for slot in (call.result, *call.arguments) if last[slot] == place and slot not in kept}
        yield call.operator, _taking(call.arguments), call.result, tuple(over)


def _taking(slots: tuple[int, ...]) -> Callable[[list[Any]], tuple[Any, ...]]:
    if len(slots) > 1:
        return itemgetter(*slots)
    # An itemgetter of one gives no tuple.
    return lambda values: tuple(values[slot] for slot in slots)


# Torch leaves its mode's hooks without types.
class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Inside this context, operators are carried out and noted.

    Args:
        inputs: told apart by identity.

    Attributes:
        refusal: why there will be no recording; ``None`` so far.
    """

    # Torch refuses to call an operator on functions under a mode that does not say so.
    supports_higher_order_operators = True

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Else torch wraps the method below against its compiler, and imports all of that, 2 s, at the first call."""
        return False

    def __init__(self, inputs: Sequence[torch.Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.refusal: str | None = None
        self._calls: list[_Call] = []
        self._constants: dict[int, Any] = {}
        self._num_inputs = self._num_slots = len(inputs)
        # Weak: a recorded call holds no more memory than another.
        self._slots: MutableMapping[torch.Tensor, int] = WeakTensorKeyDictionary(
            zip(inputs, range(len(inputs)), strict=True)
        )
        self._foreign = {_memory(value) for value in inputs}

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401 - an operator
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - what the operator returns
        result = func(*args, **(kwargs or {}))
        if self.refusal is None:
            self._note(func, args, kwargs or {}, result)
        return result

    def recording(self, outputs: Sequence[torch.Tensor]) -> Recording | None:
        """What was noted, with these results; ``None`` where it is refused."""
        if self.refusal is not None:
            return None
        return Recording(
            self._calls,
            self._constants,
            num_inputs=self._num_inputs,
            outputs=[self._slot(value) for value in outputs],
        )

    def _note(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> None:  # noqa: ANN401
        if func in _RENAMING:
            self._slots[result] = self._slot(args[0])
            return
        traits = _traits(func)
        reason = traits.refusal or _not_plain(args, kwargs, result)
        if reason is None:
            arguments = tuple(self._slot(value) for value in args)
            if any(_memory(value) in self._foreign for place in traits.written for value in _tensors(args[place:][:1])):
                reason = "writes to a tensor that is not the call's own"
        if reason is not None:
            self.refusal = f"{func} {reason}"
            return
        operator = partial(func._op, **kwargs) if kwargs else func._op
        self._result(operator, arguments, result, writes=bool(traits.written))

    def _result(
        self,
        operator: Callable[..., Any],
        arguments: tuple[int, ...],
        result: Any,  # noqa: ANN401
        *,
        writes: bool,
    ) -> None:
        slot = self._slots.get(result) if isinstance(result, torch.Tensor) else None
        if slot is None:
            slot = self._new_slot()
        self._calls.append(_Call(operator, arguments, slot, writes))
        if isinstance(result, torch.Tensor):
            self._slots[result] = slot
            return
        for place, part in enumerate(result or ()):
            if part is not None:
                self._result(itemgetter(place), (slot,), part, writes=False)

    def _slot(self, value: Any) -> int:  # noqa: ANN401 - an argument
        """Of a tensor, of a list that holds some, or of anything else."""
        found = self._slots.get(value) if isinstance(value, torch.Tensor) else None
        if found is not None:
            return found
        slot = self._new_slot()
        if isinstance(value, list | tuple) and any(isinstance(part, torch.Tensor) for part in value):
            parts = tuple(self._slot(part) for part in value)
            self._calls.append(_Call(_listed, parts, slot, writes=False))
            return slot
        self._constants[slot] = value
        if isinstance(value, torch.Tensor):
            self._constants[slot] = value.detach()
            self._slots[value] = slot
            self._foreign.add(_memory(value))
        return slot

    def _new_slot(self) -> int:
        self._num_slots += 1
        return self._num_slots - 1


def _listed(*values: object) -> list[object]:
    return list(values)


def _memory(value: torch.Tensor) -> int:
    return value.untyped_storage().data_ptr()


def _tensors(value: Any) -> Iterator[torch.Tensor]:  # noqa: ANN401
    """Those in a tensor, a list or a list of lists."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part)


def _not_plain(args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> str | None:  # noqa: ANN401
    """Why a call is more than plain tensors by position into plain tensors; ``None`` where it is not."""
    if any(value.dtype in _MASKS for part in args if isinstance(part, list) for value in _tensors(part)):
        return _REFUSED[torch.Tag.dynamic_output_shape]
    parts = result if isinstance(result, list | tuple) else (result,)
    if not all(part is None or (isinstance(part, torch.Tensor) and part.layout == torch.strided) for part in parts):
        return "gives something else than plain tensors"
    return "takes a tensor by name" if next(_tensors(list(kwargs.values())), None) is not None else None


@dataclass(frozen=True, slots=True)
class _Traits:
    """Why an operator is refused, and the positions of the arguments that it writes to."""

    refusal: str | None
    written: tuple[int, ...]


@cache
def _traits(func: Any) -> _Traits:  # noqa: ANN401
    if not hasattr(func, "_schema"):
        return _Traits("is made of Python functions", ())
    refusal = next((why for tag, why in _REFUSED.items() if tag in func.tags and func not in _TAGGED), None)
    written = tuple(
        place
        for place, argument in enumerate(func._schema.arguments)
        if argument.name in _WRITTEN_UNTOLD or (argument.alias_info is not None and argument.alias_info.is_write)
    )
    return _Traits(refusal, written)
