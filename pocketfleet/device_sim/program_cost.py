"""What a bundle's training program costs on the phones of a fleet: seconds of a step, bytes of memory."""

import numpy as np
import numpy.typing as npt

from pocketfleet.device_sim.compute import program_seconds
from pocketfleet.device_sim.efficiency import Profile
from pocketfleet.device_sim.fleet import Fleet
from pocketfleet.export.footprint import Footprint
from pocketfleet.training.codec.lossless import tensors_bytes
from pocketfleet.training.weights import Tensors

__all__ = ["step_seconds_of", "training_memory_bytes"]

Floats = npt.NDArray[np.float64]


def step_seconds_of(footprint: Footprint, fleet: Fleet, *, profile: Profile, models: int) -> Floats:
    """Seconds of a full step on each device, ``[devices]``: measured where they are known, predicted elsewhere.

    Args:
        footprint: of the runtime that the phones run. Every step is charged as a full one, at the largest batch.
        fleet: the phones.
        profile: efficiencies of the runtime.
        models: that a step trains, 1 or 2 (``traffic.Traffic.models``).
    """
    predicted_s = program_seconds(
        footprint.train_step,
        profile=profile,
        runtime=footprint.runtime,
        phones=fleet.phone_name,
        peak_flops=fleet.peak_flops,
        memory_bytes_per_s=fleet.memory_bytes_per_s,
        parallel_peak_flops=fleet.parallel_peak_flops,
    )
    seconds: Floats = models * np.where(np.isnan(fleet.measured_step_s), predicted_s, fleet.measured_step_s)
    return seconds


def training_memory_bytes(footprint: Footprint, trainable: Tensors, *, models: int) -> int:
    """What training plans to hold: a second model has weights and slots of its own beside the first one's."""
    return footprint.training_memory_bytes + (models - 1) * (tensors_bytes(trainable) + footprint.state_bytes)
