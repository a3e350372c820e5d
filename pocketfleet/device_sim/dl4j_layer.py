"""Training seconds of single layers under DL4J, a JVM framework, on two phones: a profile from published timings.

Rules:

1. A layer is a handful of operators: its products (class ``dense`` or ``lstm``; an embedding has none), its weights,
   its activations and, for an LSTM, its time steps. Each is a class of its own, so that their seconds add up.
2. The figures are least-squares fits to the layer tables of PKU-Chengxu/FLASH: a constant, and seconds a GFLOP, a
   million weights, a million activations and a time step (``catalog/dl4j.csv``, which names the source of each). The
   timings of embedding and LSTM include an output layer of two classes; FLASH takes it off, this does not.
3. A step's products are taken as three times the forward ones: forward, and the gradients of inputs and weights.
4. DL4J computes on all cores. Efficiencies are ratios of the phone's all-core peak, which is what ``peak_flops`` means
   here: 16 GFLOP/s of a Redmi Note 8 are as much as one of its cores has at most.

The fits are a median of 4 to 14 % from the rows that they were fitted to, over 20,000 rows a layer and phone
(``benchmarks/dl4j_layers.py``).
"""

import functools
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pocketfleet.device_sim.catalog import packaged_rows
from pocketfleet.device_sim.compute import step_seconds
from pocketfleet.device_sim.efficiency import Profile, profile_of_rows
from pocketfleet.device_sim.measurement import Work
from pocketfleet.errors import InputError

__all__ = ["RUNTIME", "Dl4jLayer", "dl4j_profile", "layer_seconds", "layer_work"]

RUNTIME = "dl4j"
_TABLE = "dl4j.csv"
_FLOAT_BYTES = 4
# Forward, and backward to inputs and weights; two operations a multiply-add.
_STEP_FLOPS_PER_PRODUCT = 3 * 2
_LSTM_GATES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Dl4jLayer:
    """A layer and the batch that it trains on.

    Attributes:
        kind: ``dense`` is the tables' ``output``.
        inputs: features, or tokens of an embedding.
        outputs: features.
        batch: sequences.
        positions: of each sequence.
    """

    kind: Literal["dense", "lstm", "embedding"]
    inputs: int
    outputs: int
    batch: int
    positions: int

    @property
    def weights(self) -> int:
        """How many, an LSTM's biases included."""
        if self.kind == "lstm":
            return _LSTM_GATES * self.outputs * (self.inputs + self.outputs + 1)
        return self.inputs * self.outputs

    @property
    def flops(self) -> int:
        """Operations of the products of a step."""
        if self.kind == "embedding":
            return 0
        gates, inner = (_LSTM_GATES, self.inputs + self.outputs) if self.kind == "lstm" else (1, self.inputs)
        return _STEP_FLOPS_PER_PRODUCT * self.batch * self.positions * gates * self.outputs * inner


def layer_work(layer: Dl4jLayer) -> tuple[Work, ...]:
    """What runs in a training step of a layer, as the profile's classes count it."""
    activations = layer.batch * layer.positions * layer.outputs
    groups = [
        (layer.kind, 1, layer.flops, 0),
        (f"{layer.kind}_weights", 1, 0, _FLOAT_BYTES * layer.weights),
        (f"{layer.kind}_activations", 1, 0, _FLOAT_BYTES * activations),
    ]
    if layer.kind == "lstm":
        groups.append(("lstm_time_step", layer.positions, 0, 0))
    return tuple(
        Work(operator_class=name, operators=count, flops=flops, bytes=moved) for name, count, flops, moved in groups
    )


@functools.cache
def dl4j_profile() -> Profile:
    """The packaged profile, of the phones whose layers were timed."""
    return profile_of_rows(_TABLE, packaged_rows(_TABLE))


def layer_seconds(layer: Dl4jLayer, *, phone: str) -> float:
    """Seconds of a training step of a layer on one of the phones, by ``compute.step_seconds``.

    Raises:
        InputError: the phone is none of the profile's.
    """
    known = [name for _, name in dl4j_profile().efficiencies]
    if phone not in known:
        raise InputError(f"layers were timed under DL4J on {' and '.join(known)}, got {phone!r}")
    efficiency, work = dl4j_profile().efficiency(RUNTIME, phone), layer_work(layer)
    seconds = step_seconds(
        kind=[group.operator_class for group in work for _ in range(group.operators)],
        flops=[group.flops / group.operators for group in work for _ in range(group.operators)],
        bytes=[group.bytes / group.operators for group in work for _ in range(group.operators)],
        peak_flops=np.array([efficiency.core_peak_flops]),
        # The tables' seconds a byte are a hundred times any memory's: the roof of the bandwidth is out of sight.
        memory_bytes_per_s=np.array([np.inf]),
        efficiency=efficiency,
    )
    return float(seconds[0])
