"""What training a chunk of devices gave: columns, stacked tensors, and the chunk's part of the aggregate."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from pocketfleet.device_sim.attack import Attackers
from pocketfleet.device_sim.cohort import Cohort
from pocketfleet.device_sim.uplink import Uplink
from pocketfleet.training.aggregation import Aggregator
from pocketfleet.training.codec.error_feedback import state_with
from pocketfleet.training.privacy.clipping import clip_factors
from pocketfleet.training.update import Update
from pocketfleet.training.update_norm import update_norms
from pocketfleet.training.weights import Tensors

__all__ = ["ChunkResult", "all_finite_rows", "row_of", "stacked"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkResult:
    """Columns ``[k]`` and tensors ``[k, ...]`` in the order of ``cohort``'s rows.

    Attributes:
        cohort: the chunk.
        part: the aggregate of its finite updates.
        finite: whether a device's losses and update are.
        norm: of a delta as it arrived, before it was clipped; nan where none is.
        train_loss: mean of the steps' losses.
        train_loss_rms: root of the mean of their squares.
        num_held_out: examples that a device measured its models on.
        metrics_before: means over these by name, of the downloaded model; nan where there are none.
        metrics_after: of the device's own model.
        own_model: that model, trainable weights and buffers; empty where devices keep none.
        device_state: what devices keep, after the round: the algorithm's state and what their updates did not say.
    """

    cohort: Cohort
    part: Aggregator
    finite: npt.NDArray[np.bool_]
    norm: Floats
    train_loss: Floats
    train_loss_rms: Floats
    num_held_out: npt.NDArray[np.int64]
    metrics_before: Mapping[str, Floats]
    metrics_after: Mapping[str, Floats]
    own_model: Tensors
    device_state: Tensors

    @classmethod
    def of(
        cls,
        cohort: Cohort,
        updates: Update,
        part: Aggregator,
        *,
        attackers: Attackers | None,
        uplink: Uplink | None,
        residual: Tensors,
        train_loss: Floats,
        train_loss_rms: Floats,
        num_held_out: npt.NDArray[np.int64],
        metrics_before: Mapping[str, Floats],
        metrics_after: Mapping[str, Floats],
        own_model: Tensors,
        device_state: Tensors,
    ) -> "ChunkResult":
        """The result of stacked ``updates``, which ``part`` (empty) takes but for those that are not finite.

        ``attackers`` report something else; ``None``: all devices are honest. ``uplink`` says what arrives; ``None``:
        everything. ``residual`` is what the devices' last updates did not say, stacked, ``device_state`` the
        algorithm's alone.
        """
        if attackers is not None:
            updates = attackers.reported(updates, cohort.device)
        finite = np.isfinite(train_loss)
        for tensors in updates.groups().values():
            finite &= all_finite_rows(tensors, len(cohort))
        if uplink is not None:
            updates, residual, finite = uplink.sent(updates, cohort, residual, finite)
        norm, scale = np.full(len(cohort), np.nan), cohort.scale
        if bool(np.isfinite(cohort.max_norm).any()):
            # What arrived, whatever a codec made of it: this is the length that the server vouches for.
            norm = update_norms(updates.delta)
            scale = scale * clip_factors(norm, cohort.max_norm)
        part.add_many(updates, weight=np.where(finite, cohort.weight, 0.0), scale=scale)
        return cls(
            cohort=cohort,
            part=part,
            finite=finite,
            norm=norm,
            train_loss=train_loss,
            train_loss_rms=train_loss_rms,
            num_held_out=num_held_out,
            metrics_before=metrics_before,
            metrics_after=metrics_after,
            own_model=own_model,
            device_state=state_with(device_state, residual),
        )


def all_finite_rows(tensors: Tensors, count: int) -> npt.NDArray[np.bool_]:
    """Whether all values of each row of ``[k, ...]`` tensors are finite, ``[k]``; integers are."""
    finite = np.ones(count, dtype=np.bool_)
    for value in tensors.values():
        if value.is_floating_point():
            # By NumPy: torch takes 20 times as long.
            finite &= np.isfinite(value.cpu().numpy()).reshape(count, -1).all(axis=1)
    return finite


def stacked(rows: Sequence[Tensors]) -> Tensors:
    """Tensors of single devices as one of ``[k, ...]`` by name."""
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


def row_of(tensors: Tensors, row: int) -> Tensors:
    """One device's tensors."""
    return {name: value[row] for name, value in tensors.items()}
