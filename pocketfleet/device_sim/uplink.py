"""What arrives of a chunk's updates: each device's encoded as by a phone, and decoded as by the server.

Where the codec is lossless nothing is encoded: decoding gives the same bits.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pocketfleet.device_sim.cohort import Cohort
from pocketfleet.training.codec import Codec, Seeds, round_seed
from pocketfleet.training.codec.error_feedback import compensated, residual_after
from pocketfleet.training.update import Update
from pocketfleet.training.weights import Tensors

__all__ = ["Uplink"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Uplink:
    """A fleet's.

    Attributes:
        codec: of its updates.
        seed: of the experiment.
    """

    codec: Codec
    seed: int

    def sent(
        self, updates: Update, cohort: Cohort, residual: Tensors, finite: npt.NDArray[np.bool_]
    ) -> tuple[Update, Tensors, npt.NDArray[np.bool_]]:
        """What the server decodes, and what stays behind.

        Args:
            updates: stacked ``[k, ...]``; they stay as they are.
            cohort: whose they are.
            residual: of the devices before, stacked; empty without error feedback.
            finite: whose updates are finite, ``[k]``; the others are not encoded.

        Returns:
            The updates as decoded, the residuals after, both stacked, and which of them are finite. Rows that are not
            hold what they held.
        """
        if self.codec.lossless:
            return updates, residual, finite
        wanted = compensated(Update(**{name: _on_cpu(part) for name, part in updates.groups().items()}), residual)
        delta = {name: value.clone() for name, value in wanted.delta.items()}
        after = {name: value.clone() for name, value in residual.items()}
        still = finite.copy()
        for row in np.flatnonzero(finite).tolist():
            one = Update(**{name: _row(part, row) for name, part in wanted.groups().items()})
            if not one.finite:
                still[row] = False
                continue
            shared = round_seed(self.seed, int(cohort.model_version[row]))
            data = self.codec.encode(one, Seeds(shared=shared, own=int(cohort.batch_seed[row])))
            arrived = self.codec.decode(data, one, shared)
            still[row] = arrived.finite
            for name, value in arrived.delta.items():
                delta[name][row] = value
            for name, value in (residual_after(one, arrived) if after else {}).items():
                after[name][row] = value
        return Update(delta, wanted.buffers, wanted.extra), after, still


def _on_cpu(tensors: Tensors) -> Tensors:
    return {name: value.cpu() for name, value in tensors.items()}


def _row(tensors: Tensors, row: int) -> Tensors:
    return {name: value[row] for name, value in tensors.items()}
