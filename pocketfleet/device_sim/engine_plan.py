"""The ways in which the host may compute a cohort, and their chunks.

Each is the same arithmetic up to rounding:

1. ``each``: device by device, eager PyTorch.
2. ``each_channels_last``: likewise, with the channels of images innermost in memory, which convolutions like.
3. ``each_onnx``: likewise, by the exported ONNX program.
4. ``batched``: many devices at once, ``batched_client``.
5. ``batched_unfolded``: likewise, convolutions as products of matrices.

``engine_probe`` chooses one. Hashes hold for a way and its chunks.
"""

from collections.abc import Callable
from typing import Literal, get_args

from torch import nn

from pocketfleet.device_sim.cohort import one_by_one_chunk

__all__ = ["Way", "candidates", "chunk_size"]

Way = Literal["each", "each_channels_last", "each_onnx", "batched", "batched_unfolded"]
# Fewer devices than that leave a core idle on the smaller half of a cohort for longer than mapping saves.
_LEAST_CHUNK = 32
# Below so many devices a round, mapping them saves less than the probe takes.
_LEAST_COHORT = 8


def chunk_size(way: Way, chunk: int) -> Callable[[int], int]:
    """Devices a chunk, of a cohort of so many; the number of processes has no say (see ``cohort``)."""
    if way.startswith("each"):
        return one_by_one_chunk
    # Halves at least, so that two processes have one each.
    return lambda devices: max(1, min(chunk, max(_LEAST_CHUNK, -(-devices // 2))))


def candidates(model: nn.Module, *, cohort: int, onnx: bool) -> tuple[Way, ...]:
    """The ways worth a try for a model, the plainest first."""
    convolves = any(isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d) for module in model.modules())
    images = any(isinstance(module, nn.Conv2d) for module in model.modules())
    wanted = {
        "each": True,
        "each_channels_last": images,
        "each_onnx": convolves and onnx,
        "batched": cohort >= _LEAST_COHORT,
        "batched_unfolded": images and cohort >= _LEAST_COHORT,
    }
    return tuple(way for way in get_args(Way) if wanted[way])
