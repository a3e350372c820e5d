"""What an encoding draws from: a seed that all devices of a model version share, and one of a device's own."""

from dataclasses import dataclass

from pocketfleet.training.draws import draw_key

__all__ = ["Seeds", "round_seed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seeds:
    """Both 0 to 2**63 - 1.

    Attributes:
        shared: of rotations and of what is kept at random; who decodes needs it too.
        own: of the dice of rounding: the seed of the device's batches.
    """

    shared: int
    own: int


def round_seed(seed: int, model_version: int) -> int:
    """The shared seed of those that train from a model version, by the experiment's, which never leaves the server."""
    return int(draw_key(seed, "codec", model_version)) >> 1
