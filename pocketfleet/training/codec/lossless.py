"""An update as canonical safetensors: every bit kept.

Format: 8 bytes of little-endian header length; the header, JSON without spaces, tensors ordered by type as in
``_DTYPE_ORDER``, then name, padded with spaces to a multiple of 8; then the values.
(https://github.com/huggingface/safetensors)
"""

import itertools
import json
from collections.abc import Mapping
from types import MappingProxyType

import torch

from pocketfleet.training.codec.seeds import Seeds
from pocketfleet.training.update import Update, UpdateError, tensors_from_bytes, tensors_to_bytes
from pocketfleet.training.weights import Tensors

__all__ = ["LosslessCodec", "checked_tensors", "tensors_bytes"]

_EXTRA = "extra/"
# safetensors' names of the types, in the order in which the library lays them out (safetensors 0.8).
_DTYPE_ORDER = {
    torch.int64: "I64",
    torch.float64: "F64",
    torch.float32: "F32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def tensors_bytes(tensors: Tensors) -> int:
    """Size of ``tensors_to_bytes(tensors)``, from names, types and shapes alone."""
    order = list(_DTYPE_ORDER)
    header, offset = {}, 0
    for name, value in sorted(tensors.items(), key=lambda item: (order.index(item[1].dtype), item[0])):
        end = offset + value.numel() * value.element_size()
        header[name] = {
            "dtype": _DTYPE_ORDER[value.dtype],
            "shape": list(value.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    length = len(json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode())
    return 8 + -(-length // 8) * 8 + offset


def checked_tensors(data: bytes, like: Tensors) -> Tensors:
    """The tensors in ``data``, by name.

    Raises:
        UpdateError: names, shapes or types are not those of ``like``.
    """
    tensors = tensors_from_bytes(data)
    for name in sorted(tensors.keys() | like.keys()):
        if name not in tensors or name not in like:
            side = "lacks" if name in like else "has an unknown"
            raise UpdateError(f"the update {side} tensor {name!r}")
        got, want = tensors[name], like[name]
        if got.shape != want.shape or got.dtype != want.dtype:
            raise UpdateError(
                f"tensor {name!r} must be {want.dtype} of shape {tuple(want.shape)}, got {got.dtype} of shape "
                f"{tuple(got.shape)}"
            )
    return tensors


class LosslessCodec:
    """Deltas and buffers side by side under their names, what else is reported under ``extra/`` and its name."""

    name = "lossless"
    lossless = True
    error_feedback = False
    options: Mapping[str, int | float | bool] = MappingProxyType({})
    parts: tuple[str, ...] = ("lossless",)

    def check(self, like: Update) -> None:
        """Whether updates like this one can be encoded: all can."""

    def encode(self, update: Update, seeds: Seeds | None = None) -> bytes:  # noqa: ARG002 - nothing is drawn
        """Canonical bytes of the update.

        Raises:
            ValueError: two of its tensors would have one name.
        """
        return tensors_to_bytes(_side_by_side(update))

    def decode(self, data: bytes, like: Update, shared_seed: int = 0) -> Update:  # noqa: ARG002 - likewise
        """The update in ``data``.

        Raises:
            UpdateError: names, shapes or types are not those of ``like``.
        """
        tensors = checked_tensors(data, _side_by_side(like))
        return Update(
            delta={name: tensors[name] for name in like.delta},
            buffers={name: tensors[name] for name in like.buffers},
            extra={name: tensors[_EXTRA + name] for name in like.extra},
        )

    def encoded_bytes(self, like: Update) -> int:
        """Size of any update of these names, types and shapes."""
        return tensors_bytes(_side_by_side(like))


def _side_by_side(update: Update) -> Tensors:
    extra = {_EXTRA + name: value for name, value in update.extra.items()}
    tensors = update.delta | update.buffers | extra
    if len(tensors) < len(update.delta) + len(update.buffers) + len(extra):
        names = sorted([*update.delta, *update.buffers, *extra])
        twice = next(name for name, following in itertools.pairwise(names) if name == following)
        raise ValueError(f"an update holds two tensors of the name {twice!r}")
    return tensors
