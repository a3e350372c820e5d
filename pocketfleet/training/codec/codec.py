"""How an update becomes bytes and back: what all update formats have in common."""

from collections.abc import Mapping
from typing import Protocol

from pocketfleet.training.codec.seeds import Seeds
from pocketfleet.training.update import Update

__all__ = ["Codec"]


class Codec(Protocol):
    """An update format.

    ``lossless`` tells the simulator that decoding what was encoded gives the same bits, so that it may skip both.
    ``error_feedback`` tells a device to keep what an update does not say (see ``error_feedback``). ``options`` are as
    in the experiment, ``parts`` what a device must be able to do.
    """

    name: str
    lossless: bool
    error_feedback: bool
    options: Mapping[str, int | float | bool]
    parts: tuple[str, ...]

    def check(self, like: Update) -> None:
        """Whether updates like this one can be encoded; ``InputError``: they cannot."""
        ...

    def encode(self, update: Update, seeds: Seeds) -> bytes:
        """The update as bytes; its values are finite."""
        ...

    def decode(self, data: bytes, like: Update, shared_seed: int) -> Update:
        """The update in ``data``, of a device that drew from ``shared_seed``.

        ``UpdateError``: names, shapes, types or values are not those of an encoded update like ``like``.
        """
        ...

    def encoded_bytes(self, like: Update) -> int:
        """How long ``encode`` of any update like this one is."""
        ...
