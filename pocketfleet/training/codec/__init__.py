"""How an update becomes bytes and back; a size depends on shapes and settings alone.

``lossless`` is the only format yet: canonical safetensors.
"""

from typing import Protocol

from pocketfleet.training.codec.lossless import LosslessCodec
from pocketfleet.training.update import Update

__all__ = ["Codec", "LosslessCodec"]


class Codec(Protocol):
    """An update format.

    ``lossless`` tells the simulator that decoding what was encoded gives the same bits, so that it may skip both.
    """

    name: str
    lossless: bool

    def encode(self, update: Update) -> bytes:
        """The update as bytes."""
        ...

    def decode(self, data: bytes, like: Update) -> Update:
        """The update in ``data``; ``UpdateError`` when names, shapes or types are not those of ``like``."""
        ...

    def encoded_bytes(self, like: Update) -> int:
        """How long ``encode`` of any update like this one is."""
        ...
