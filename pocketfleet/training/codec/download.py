"""The weights of a model version in few bytes: each rounded to the nearest of a few levels.

Format: canonical safetensors of ``weights/codes`` and ``weights/steps``, see ``lossy``, of the trainable weights as one
flat vector, a piece a tensor; buffers beside them under their own names, every bit kept.

The server keeps all bits of its weights; devices train from what they decode, and report how far they moved from
there. Rounding is to nearest: each version is rounded anew, so that nothing adds up.
"""

from pocketfleet.training.codec.flat_vector import check_float32, flat_vector, piece_lengths, shaped_like
from pocketfleet.training.codec.lossless import checked_tensors, tensors_bytes
from pocketfleet.training.codec.lossy import coded_like, decoded_values, encoded_values
from pocketfleet.training.codec.quantisation import blocks_of
from pocketfleet.training.update import tensors_to_bytes
from pocketfleet.training.weights import Tensors

__all__ = ["Download"]

_PREFIX = "weights/"


class Download:
    """The format; ``bits`` 8, 4 or 2 a weight, 0: every bit is kept, and all tensors stand under their own names."""

    def __init__(self, bits: int = 0) -> None:
        self.bits = bits

    def check(self, trainable: Tensors) -> None:
        """Whether these can be encoded.

        Raises:
            InputError: one is not float32.
        """
        if self.bits:
            check_float32(trainable)

    def encode(self, trainable: Tensors, buffers: Tensors) -> bytes:
        """A version's bytes."""
        if not self.bits:
            return tensors_to_bytes(trainable | buffers)
        blocks = blocks_of(piece_lengths(trainable))
        coded = encoded_values(flat_vector(trainable), blocks, bits=self.bits, dice_seed=None)
        return tensors_to_bytes(_beside(coded, buffers))

    def decode(self, data: bytes, trainable: Tensors, buffers: Tensors) -> tuple[Tensors, Tensors]:
        """Weights and buffers in ``data``.

        Args:
            data: of ``encode``.
            trainable: any weights of the model, for names and shapes.
            buffers: likewise.

        Raises:
            UpdateError: names, shapes or types are others, or values are no encoding.
        """
        tensors = checked_tensors(data, self._like(trainable, buffers))
        sent = {name: tensors[name] for name in buffers}
        if not self.bits:
            return {name: tensors[name] for name in trainable}, sent
        coded = {name.removeprefix(_PREFIX): value for name, value in tensors.items() if name.startswith(_PREFIX)}
        vector = decoded_values(coded, blocks_of(piece_lengths(trainable)), bits=self.bits)
        return shaped_like(vector, trainable), sent

    def encoded_bytes(self, trainable: Tensors, buffers: Tensors) -> int:
        """How long ``encode`` of any such version is."""
        return tensors_bytes(self._like(trainable, buffers))

    def _like(self, trainable: Tensors, buffers: Tensors) -> Tensors:
        if not self.bits:
            return trainable | buffers
        return _beside(coded_like(blocks_of(piece_lengths(trainable)), bits=self.bits), buffers)


def _beside(coded: Tensors, buffers: Tensors) -> Tensors:
    return {_PREFIX + name: value for name, value in coded.items()} | buffers
