"""The weights of a model version in few bytes: each rounded to the nearest of a few levels.

Format: canonical safetensors of ``weights/codes`` and ``weights/steps``, see ``lossy``, of the trainable weights that
devices download as one flat vector, a piece a tensor; buffers beside them under their own names, every bit kept. With
0 bits: all of them under their own names, every bit kept.

The server keeps all bits of its weights; devices train from what they decode, and report how far they moved from
there. Rounding is to nearest: each version is rounded anew, so that nothing adds up.
"""

from dataclasses import dataclass, replace

from pocketfleet.training.codec.flat_vector import check_float32, flat_vector, piece_lengths, shaped_like
from pocketfleet.training.codec.lossless import checked_tensors, tensors_bytes
from pocketfleet.training.codec.lossy import coded_like, decoded_values, encoded_values
from pocketfleet.training.codec.quantisation import blocks_of
from pocketfleet.training.update import tensors_to_bytes
from pocketfleet.training.weights import Tensors, Weights

__all__ = ["DownloadCodec"]

_PREFIX = "weights/"


@dataclass(frozen=True, slots=True)
class DownloadCodec:
    """The format.

    Attributes:
        names: of the weights and buffers that devices download with each version.
        bits: 8, 4 or 2 a trainable weight; 0: all of them.
    """

    names: frozenset[str]
    bits: int = 0

    def check(self, weights: Weights) -> None:
        """Whether these can be encoded.

        Raises:
            InputError: one is not float32.
        """
        if self.bits:
            check_float32(self._of(weights.trainable))

    def encode(self, weights: Weights) -> bytes:
        """A version's bytes; its weights are finite."""
        trainable, buffers = self._of(weights.trainable), self._of(weights.buffers)
        if not self.bits:
            return tensors_to_bytes(trainable | buffers)
        blocks = blocks_of(piece_lengths(trainable))
        coded = encoded_values(flat_vector(trainable), blocks, bits=self.bits, dice_seed=None)
        return tensors_to_bytes(_beside(coded, buffers))

    def decode(self, data: bytes, like: Weights) -> Weights:
        """The version in ``data``.

        Args:
            data: of ``encode``.
            like: of the model; what is not downloaded is taken from it.

        Raises:
            UpdateError: names, shapes or types are others, or values are no encoding.
        """
        tensors = checked_tensors(data, self._like(like))
        trainable = self._of(like.trainable)
        if self.bits:
            coded = {name.removeprefix(_PREFIX): value for name, value in tensors.items() if name.startswith(_PREFIX)}
            vector = decoded_values(coded, blocks_of(piece_lengths(trainable)), bits=self.bits)
            tensors |= shaped_like(vector, trainable)
        return replace(
            like,
            trainable={name: tensors.get(name, value) for name, value in like.trainable.items()},
            buffers={name: tensors.get(name, value) for name, value in like.buffers.items()},
        )

    def seen(self, weights: Weights) -> Weights:
        """What devices have of a version once they have decoded it."""
        return self.decode(self.encode(weights), weights) if self.bits else weights

    def encoded_bytes(self, like: Weights) -> int:
        """How long ``encode`` of any version of this model is."""
        return tensors_bytes(self._like(like))

    def _of(self, tensors: Tensors) -> Tensors:
        return {name: value for name, value in tensors.items() if name in self.names}

    def _like(self, like: Weights) -> Tensors:
        trainable, buffers = self._of(like.trainable), self._of(like.buffers)
        if not self.bits:
            return trainable | buffers
        return _beside(coded_like(blocks_of(piece_lengths(trainable)), bits=self.bits), buffers)


def _beside(coded: Tensors, buffers: Tensors) -> Tensors:
    return {_PREFIX + name: value for name, value in coded.items()} | buffers
