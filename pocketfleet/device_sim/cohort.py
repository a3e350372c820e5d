"""The work of a round's accepted devices as columns, and its division into chunks.

Rules:

1. A chunk is what one process computes at a time; its devices train from one model version.
2. Chunks are a function of the cohort and of ``size`` alone, never of how many processes there are: sums over a chunk
   then have the same bits whoever computes it.
3. Within a version, devices are sorted by steps, then examples, most first, then by index: those of a chunk end at
   about the same step, and the longest chunks are begun first.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

__all__ = ["Cohort", "chunks", "one_by_one_chunk"]

Int64s = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cohort:
    """Columns ``[k]``, a row a device.

    Attributes:
        place: the row's place in the round's table of accepted work.
        device: dense index.
        steps: batches that it completed, 1 or more.
        batch_seed: draws them.
        first_example: the first of the examples that it held, in order of arrival.
        num_present: how many these were.
        model_version: what it trained from.
        weight: its share in the mean.
        scale: a factor of its delta, see ``aggregation``.
        max_norm: to which its delta is clipped before that; inf: not at all.
    """

    place: Int64s
    device: Int64s
    steps: Int64s
    batch_seed: Int64s
    first_example: Int64s
    num_present: Int64s
    model_version: Int64s
    weight: Floats
    scale: Floats
    max_norm: Floats

    def __len__(self) -> int:
        return len(self.device)

    def take(self, rows: Int64s) -> "Cohort":
        """The rows at these places, in that order."""
        return Cohort(**{column.name: getattr(self, column.name)[rows] for column in fields(self)})

    def present(self, row: int) -> range:
        """Places of the examples that a row's device held, in order of arrival."""
        first = int(self.first_example[row])
        return range(first, first + int(self.num_present[row]))

    @classmethod
    def of_devices(
        cls, devices: Sequence[int], *, steps: int | Sequence[int] = 1, batch_seed: int | Sequence[int] = 0
    ) -> "Cohort":
        """Devices that hold all of their examples, train from version 0 and count alike."""
        device = np.array(devices, dtype=np.int64)
        zeros = np.zeros_like(device)
        return cls(
            place=np.arange(len(device)),
            device=device,
            steps=zeros + np.asarray(steps, dtype=np.int64),
            batch_seed=zeros + np.asarray(batch_seed, dtype=np.int64),
            first_example=zeros,
            # As many as there are: what a device holds is never more than it has.
            num_present=zeros + np.iinfo(np.int32).max,
            model_version=zeros,
            weight=np.ones(len(device)),
            scale=np.ones(len(device)),
            max_norm=np.full(len(device), np.inf),
        )


def chunks(cohort: Cohort, *, size: int) -> Iterator[Cohort]:
    """Rules 1 to 3: chunks of ``size`` devices at most."""
    order = np.lexsort((cohort.device, -cohort.num_present, -cohort.steps, cohort.model_version))
    versions = cohort.model_version[order]
    for of_version in np.split(order, np.flatnonzero(np.diff(versions)) + 1):
        for start in range(0, len(of_version), size):
            yield cohort.take(of_version[start : start + size])


def one_by_one_chunk(devices: int) -> int:
    """Devices a chunk where each trains by itself: enough chunks to keep all processes busy until the end."""
    # Eight devices at most: their models are in memory together. A sixteenth: a cohort of ten is not two chunks.
    return max(1, min(8, -(-devices // 16)))
