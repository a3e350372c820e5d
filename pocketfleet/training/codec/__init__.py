"""How an update becomes bytes and back, and a model version too; a size depends on shapes and settings alone.

Read in this order:

1. ``codec``: what all formats have in common. ``lossless``: every bit kept.
2. ``flat_vector``; ``rotation``, ``random_k``, ``top_k``: what can be done to a vector; ``quantisation``, ``packing``.
3. ``stages``, ``lossy``: an update through some of these; ``seeds``: what is drawn.
4. ``error_feedback``: what an update did not say. ``download_codec``: the way down.
5. ``codec_by_name``: which chains there are.
"""

from pocketfleet.training.codec.codec import Codec
from pocketfleet.training.codec.codec_by_name import DEVICE_PARTS, load_codec
from pocketfleet.training.codec.download_codec import DownloadCodec
from pocketfleet.training.codec.lossless import LosslessCodec
from pocketfleet.training.codec.seeds import Seeds, round_seed

__all__ = ["DEVICE_PARTS", "Codec", "DownloadCodec", "LosslessCodec", "Seeds", "load_codec", "round_seed"]
