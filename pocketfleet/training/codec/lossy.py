"""An update in few bytes: its delta as one flat vector through stages, its values then as codes or as they are.

Format: canonical safetensors, as ``lossless`` writes them, of these tensors and no others:

1. ``delta/codes``, uint8: the packed codes of the vector's values (``quantisation``, ``packing``), and ``delta/steps``,
   float32, a step a block; or, where nothing is quantised, ``delta/values``, float32.
2. ``delta/places``, uint8, where the largest values are kept: their places (``top_k``).
3. Buffers and what else is reported, under the names that ``lossless`` gives them, every bit kept.

What is drawn is in ``seeds``. All lengths follow from the model's shapes and the settings.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch

from pocketfleet.training.codec.flat_vector import check_float32, flat_vector, piece_lengths, shaped_like
from pocketfleet.training.codec.lossless import LosslessCodec
from pocketfleet.training.codec.packing import packed, packed_bytes, unpacked
from pocketfleet.training.codec.quantisation import Blocks, blocks_of, dequantised, levels, quantised
from pocketfleet.training.codec.seeds import Seeds
from pocketfleet.training.codec.stages import Stage
from pocketfleet.training.update import Update, UpdateError
from pocketfleet.training.weights import Tensors

__all__ = ["LossyCodec", "coded_like", "decoded_values", "encoded_values"]

Float32s = npt.NDArray[np.float32]
UInt8s = npt.NDArray[np.uint8]
_CODES, _STEPS, _VALUES, _PLACES = "codes", "steps", "values", "places"
_PREFIX = "delta/"


def encoded_values(vector: Float32s, blocks: Blocks, *, bits: int, dice_seed: int | None) -> Tensors:
    """A vector's values as ``codes`` and ``steps``; with ``bits`` 0 as ``values``."""
    if not bits:
        return {_VALUES: torch.from_numpy(vector)}
    codes, steps = quantised(vector, blocks, bits=bits, dice_seed=dice_seed)
    return {_CODES: torch.from_numpy(packed(codes, bits=bits)), _STEPS: torch.from_numpy(steps)}


def decoded_values(coded: Tensors, blocks: Blocks, *, bits: int) -> Float32s:
    """The vector that ``encoded_values`` wrote, to be kept or changed; names and shapes are those of ``coded_like``.

    Raises:
        UpdateError: a code is none, or a step is no length.
    """
    if not bits:
        values: Float32s = coded[_VALUES].numpy()
        return values
    codes, steps = unpacked(coded[_CODES].numpy(), bits=bits, count=blocks.total), coded[_STEPS].numpy()
    if len(codes) and int(codes.max()) > 2 * levels(bits):
        raise UpdateError(f"codes of {bits} bits must be 0..{2 * levels(bits)}, got {int(codes.max())}")
    if not bool((np.isfinite(steps) & (steps >= 0.0)).all()):
        raise UpdateError("steps of quantisation must be finite and 0 or more")
    return dequantised(codes, steps, blocks, bits=bits)


def coded_like(blocks: Blocks, *, bits: int) -> Tensors:
    """Tensors of the names, shapes and types of ``encoded_values``, without values."""
    if not bits:
        return {_VALUES: _empty(blocks.total, torch.float32)}
    return {
        _CODES: _empty(packed_bytes(blocks.total, bits=bits), torch.uint8),
        _STEPS: _empty(len(blocks.start), torch.float32),
    }


def _empty(length: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.empty(length, dtype=dtype, device="meta")


class LossyCodec:
    """See the module.

    Args:
        stages: in the order in which they are applied, one of them at most with bytes beside its vector.
        name: of the whole.
        parts: what a device must be able to do.
        options: as in the experiment.
        bits: of a value: 8, 4 or 2; 0: float32 values.
        error_feedback: what an update does not say is added to the device's next one; rounding is then to nearest.
    """

    lossless = False
    options: Mapping[str, int | float | bool]

    def __init__(
        self,
        stages: Sequence[Stage],
        *,
        name: str,
        parts: tuple[str, ...],
        options: Mapping[str, int | float | bool],
        bits: int,
        error_feedback: bool,
    ) -> None:
        self.name = name
        self.parts = parts
        self.options = dict(options)
        self.error_feedback = error_feedback
        self._stages = tuple(stages)
        self._bits = bits
        self._body = LosslessCodec()

    def check(self, like: Update) -> None:
        """Whether updates like this one can be encoded.

        Raises:
            InputError: a weight is not float32.
        """
        check_float32(like.delta)

    def encode(self, update: Update, seeds: Seeds) -> bytes:
        """The update as bytes.

        Raises:
            ValueError: a value of the delta is not finite, or two tensors would have one name.
        """
        vector, places = flat_vector(update.delta), None
        lengths = piece_lengths(update.delta)
        for stage in self._stages:
            vector, side = stage.apply(vector, seeds.shared)
            lengths = (len(vector),)
            places = side if len(side) else places
        dice_seed = None if self.error_feedback else seeds.own
        coded = encoded_values(vector, blocks_of(lengths), bits=self._bits, dice_seed=dice_seed)
        if places is not None:
            coded[_PLACES] = torch.from_numpy(places)
        return self._body.encode(_with_delta(update, coded))

    def decode(self, data: bytes, like: Update, shared_seed: int) -> Update:
        """The update in ``data``, as far as it says.

        Args:
            data: of a device that drew from ``shared_seed``.
            like: any update of the model.
            shared_seed: see ``seeds``.

        Raises:
            UpdateError: names, shapes or types are not those that an update like ``like`` is encoded in, or what they
                hold is no encoding.
        """
        lengths = self._lengths(like)
        blocks = self._blocks(like)
        body = self._body.decode(data, _with_delta(like, self._coded_like(like)))
        coded = {name.removeprefix(_PREFIX): value for name, value in body.delta.items()}
        vector = decoded_values(coded, blocks, bits=self._bits)
        side = coded[_PLACES].numpy() if _PLACES in coded else np.empty(0, dtype=np.uint8)
        for stage, length in zip(reversed(self._stages), reversed(lengths[:-1]), strict=True):
            vector = stage.undo(vector, side, shared_seed, length=length)
        return Update(shaped_like(vector, like.delta), body.buffers, body.extra)

    def encoded_bytes(self, like: Update) -> int:
        """Size of any update of these names, types and shapes."""
        return self._body.encoded_bytes(_with_delta(like, self._coded_like(like)))

    def _lengths(self, like: Update) -> list[int]:
        """Of the vector before each stage, and after the last."""
        lengths = [sum(piece_lengths(like.delta))]
        for stage in self._stages:
            lengths.append(stage.made_length(lengths[-1]))
        return lengths

    def _blocks(self, like: Update) -> Blocks:
        return blocks_of((self._lengths(like)[-1],) if self._stages else piece_lengths(like.delta))

    def _coded_like(self, like: Update) -> Tensors:
        coded = coded_like(self._blocks(like), bits=self._bits)
        places = sum(stage.side_bytes(length) for stage, length in zip(self._stages, self._lengths(like), strict=False))
        return coded | ({_PLACES: _empty(places, torch.uint8)} if places else {})


def _with_delta(update: Update, coded: Tensors) -> Update:
    return Update({_PREFIX + name: value for name, value in coded.items()}, update.buffers, update.extra)
