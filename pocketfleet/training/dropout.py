"""Dropout whose dice are given: the same on every runtime, and on every replay.

1. Where a model would draw a mask, it takes uniform numbers in [0, 1) from a source instead, and keeps a value where
   its number is at least the probability of dropping. Sites are counted 0, 1, ... in the order in which a forward
   pass meets them.
2. ``drawn(seed)`` is the source of a device's steps: site ``s`` reads the numbers of
   ``draw_key(seed, "dropout_site", s)``, 24 bits each, which ``float32`` holds exactly; in row-major order.
3. The seeds of a device's steps are ``step_seeds(batch_seed, steps)``.
4. An operator that draws anything else is refused by name.

Every layer that drops is covered, since it is torch's operators that are replaced, below autograd.

Tried with torch 2.13.0: ``torch.utils._python_dispatch.TorchDispatchMode``.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pocketfleet.errors import InputError
from pocketfleet.training.draws import draw_key, numbers

__all__ = ["UniformSource", "Uniforms", "drawn", "step_seeds"]

# From the index of a site and the shape of its mask to ``float32`` numbers of that shape.
UniformSource = Callable[[int, Sequence[int]], torch.Tensor]

aten = torch.ops.aten
_BITS = np.uint64(24)


def step_seeds(batch_seed: int, steps: int) -> list[int]:
    """The seeds of the masks of steps 0, 1, ..."""
    seeds: list[int] = draw_key(batch_seed, "dropout", np.arange(steps)).tolist()
    return seeds


def drawn(seed: int) -> UniformSource:
    """Rule 2."""

    def source(site: int, shape: Sequence[int]) -> torch.Tensor:
        count = int(torch.Size(shape).numel())
        values = (numbers(draw_key(seed, "dropout_site", site), count) >> (np.uint64(64) - _BITS)).astype(np.float32)
        return torch.from_numpy(values * np.float32(2.0**-24)).reshape(tuple(shape))

    return source


# Torch leaves its mode's hooks without types.
class Uniforms(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Inside this context, masks are made of the source's numbers; ``sites`` counts those met so far.

    Raises:
        InputError: something draws random numbers that are no mask of a dropout.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Else torch wraps the method below against its compiler, and imports all of that, 2 s, at the first call."""
        return False

    def __init__(self, source: UniformSource) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._source = source
        self.sites = 0

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401 - an operator
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - what the operator returns
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded not in func.tags or func in _HARMLESS:
            return func(*args, **kwargs)
        replacement = _REPLACEMENTS.get(func)
        if replacement is None:
            raise InputError(
                f"the model draws random numbers by {func}, which is no dropout: neither runtime could draw the same; "
                "give the model what it draws as part of its examples, or take that layer out"
            )
        return replacement(self._next, *args, **kwargs)

    def _next(self, shape: Sequence[int]) -> torch.Tensor:
        self.sites += 1
        return self._source(self.sites - 1, shape)


_Next = Callable[[Sequence[int]], torch.Tensor]


def _bernoulli_(draw: _Next, tensor: torch.Tensor, p: float = 0.5, *, generator: None = None) -> torch.Tensor:
    """Ones with probability ``p``, in place."""
    del generator
    return tensor.copy_((draw(tensor.shape) >= 1.0 - p).to(tensor.dtype))


def _native_dropout(
    draw: _Next,
    x: torch.Tensor,
    p: float,
    train: bool | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    if train is False or p == 0.0:
        return x.clone(), torch.ones_like(x, dtype=torch.bool)
    keep = draw(x.shape) >= p
    # The operator's gradient is ``grad * keep * 1 / (1 - p)``.
    scale = 0.0 if p == 1.0 else 1.0 / (1.0 - p)
    return x * keep * scale, keep


_REPLACEMENTS: Mapping[Any, Callable[..., Any]] = {
    aten.bernoulli_.float: _bernoulli_,
    aten.native_dropout.default: _native_dropout,
}
# Carries the tag for its dropout, which it does not support on a CPU: torch takes another way there.
_HARMLESS = {aten._scaled_dot_product_flash_attention_for_cpu.default}
