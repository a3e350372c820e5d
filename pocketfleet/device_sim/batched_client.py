"""What many devices compute in a round, at once: ``client.Client``'s arithmetic with one more dimension.

Rules:

1. Devices of a chunk come with falling numbers of steps (``cohort``), so that those that still train are the first
   ones, and a finished device costs nothing.
2. Batches are the very rows that ``batches.batch_indices`` gives each device.
3. The algorithm's calls are mapped by ``torch.vmap``; one that cannot be is made device by device.
4. A model that draws, or whose loss is not one value an example, is not for here: ``engine_plan`` says which.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import torch
from torch.func import functional_call

from pocketfleet.device_sim.attack import Attackers
from pocketfleet.device_sim.chunk_result import ChunkResult, row_of, stacked
from pocketfleet.device_sim.cohort import Cohort
from pocketfleet.device_sim.device_data import DeviceData
from pocketfleet.device_sim.uplink import Uplink
from pocketfleet.errors import InputError
from pocketfleet.training.aggregation import Aggregator, MeanAggregator
from pocketfleet.training.algorithm import Algorithm, ClientTerms, Trained
from pocketfleet.training.batched_step import BatchedStep, joined_states, rows_of_state, stacked_state
from pocketfleet.training.batches import BatchTable
from pocketfleet.training.codec.error_feedback import parted_state
from pocketfleet.training.device_rows import PaddedRows
from pocketfleet.training.examples import Examples
from pocketfleet.training.task import Task
from pocketfleet.training.train_step import StepSettings, TrainState, TrainStep, hyper_tensors
from pocketfleet.training.update import Update
from pocketfleet.training.weights import Tensors, Weights

__all__ = ["BatchedClient"]

Floats = npt.NDArray[np.float64]
# Held-out examples that are measured at once: bounds the memory of their activations.
_EVALUATED_AT_ONCE = 16_384


@dataclass(slots=True, kw_only=True)
class BatchedClient:
    """The training app of many devices.

    Args:
        task: its loss and metrics.
        step: of the model, by ``BatchedStep``.
        train_step: of one device, for its model.
        data: of the whole fleet.
        algorithm: what is added to the steps.
        settings: of the steps, the algorithm's terms switched on.
        hyper: the experiment's hyper-parameters by name.
        batch_size: examples a step.
        chunk: devices that chunks hold at most.
        device: where torch computes, ``"cpu"`` or ``"cuda"``.
        personalised: whether a device keeps the model that it trained, and measures it.
        make_aggregator: an empty aggregator for a chunk's updates.
        attackers: of the fleet; ``None``: all devices are honest.
        uplink: what arrives of updates; ``None``: every bit.
    """

    task: Task
    step: BatchedStep
    train_step: TrainStep
    data: DeviceData
    algorithm: Algorithm
    settings: StepSettings
    hyper: Mapping[str, float]
    batch_size: int
    chunk: int
    device: str = "cpu"
    personalised: bool = True
    make_aggregator: Callable[[], Aggregator] = MeanAggregator
    attackers: Attackers | None = None
    uplink: Uplink | None = None
    # Found at the first chunk: whether torch can map the algorithm's calls.
    _maps: bool = field(default=True, init=False)

    def train_chunk(self, cohort: Cohort, weights: Weights, broadcast: Tensors, device_state: Tensors) -> ChunkResult:
        """Train the devices of a chunk; see ``client.Client.train_chunk``."""
        device_state, residual = parted_state(device_state)
        weights = _moved_weights(weights, self.device)
        broadcast, device_state = _moved(broadcast, self.device), _moved(device_state, self.device)
        training, held_out = self.data.splits(cohort.device, cohort.first_example, cohort.num_present)
        terms = self._terms(weights, broadcast, device_state)
        hyper = {**self.hyper, **terms.hyper}
        ends, losses = self._steps(cohort, training, self._starts(weights, terms, len(cohort)), self._hypers(terms))
        delta = {name: value - weights.trainable[name] for name, value in ends[0].trainable.items()}
        updates, device_state = self._updates(
            Trained(
                update=Update(delta, ends[0].buffers),
                steps=torch.from_numpy(cohort.steps).to(torch.float32).to(self.device),
                hyper=hyper,
                personal=ends[-1].trainable if terms.personal else {},
            ),
            broadcast,
            device_state,
        )
        own = Weights(trainable=ends[-1].trainable, buffers=ends[-1].buffers, frozen=weights.frozen)
        measured = self.personalised
        return ChunkResult.of(
            cohort,
            updates,
            self.make_aggregator(),
            attackers=self.attackers,
            uplink=self.uplink,
            residual=residual,
            train_loss=losses.sum(axis=0) / cohort.steps,
            train_loss_rms=np.sqrt(np.square(losses).sum(axis=0) / cohort.steps),
            num_held_out=held_out[1] if measured else np.zeros(len(cohort), dtype=np.int64),
            metrics_before=self._measured(weights, held_out, own=False) if measured else {},
            metrics_after=self._measured(own, held_out, own=True) if measured else {},
            own_model=_moved(own.trainable | own.buffers, "cpu") if measured else {},
            device_state=_moved(device_state, "cpu"),
        )

    def _terms(self, weights: Weights, broadcast: Tensors, device_state: Tensors) -> ClientTerms:
        """What the devices' steps add, each tensor stacked."""
        start = self.algorithm.client_start
        if not device_state:
            # Nothing tells one device from another.
            return start(weights, broadcast, {})
        if self._maps:
            kept: list[ClientTerms] = []

            def mapped(state: Tensors) -> tuple[Tensors, Tensors, Tensors]:
                terms = start(weights, broadcast, state)
                kept.append(terms)
                return terms.correction or {}, terms.start, terms.personal

            try:
                correction, begun, personal = torch.vmap(mapped)(device_state)
            except (RuntimeError, ValueError, TypeError):
                self._maps = False
            else:
                wanted = kept[-1].correction is not None
                return replace(kept[-1], correction=correction if wanted else None, start=begun, personal=personal)
        count = len(next(iter(device_state.values())))
        terms = [start(weights, broadcast, row_of(device_state, row)) for row in range(count)]
        corrections = [one.correction for one in terms if one.correction is not None]
        return replace(
            terms[0],
            correction=stacked(corrections) if corrections else None,
            start=stacked([one.start for one in terms]),
            personal=stacked([one.personal for one in terms]),
        )

    def _starts(self, weights: Weights, terms: ClientTerms, count: int) -> list[TrainState]:
        """The states before the first step, of the reported model and of the personal one if there is one."""
        states = [stacked_state(TrainState.start(weights, self.settings), count)]
        if terms.personal:
            states.append(replace(states[0], trainable=_expanded(terms.personal, weights.trainable, count)))
        begun = _expanded(terms.start, weights.trainable, count)
        states[0] = replace(states[0], trainable=states[0].trainable | begun)
        if terms.correction is not None:
            states[0] = replace(states[0], correction=_expanded(terms.correction, weights.trainable, count))
        return states

    def _hypers(self, terms: ClientTerms) -> list[Tensors]:
        values = {**self.hyper, **terms.hyper}
        hypers = [_moved(hyper_tensors(self.settings, values), self.device)]
        if terms.personal:
            hypers.append(_moved(hyper_tensors(self.settings, {**values, **terms.personal_hyper}), self.device))
        return hypers

    def _steps(
        self, cohort: Cohort, training: PaddedRows, states: list[TrainState], hypers: list[Tensors]
    ) -> tuple[list[TrainState], Floats]:
        """The states after the devices' steps, and the losses of the first, ``[steps, k]``, 0 beyond a device's own."""
        rows, counts = training
        table = BatchTable(counts, steps=cohort.steps, batch_size=self.batch_size, batch_seed=cohort.batch_seed)
        steps, active = int(cohort.steps[0]), len(cohort)
        # One size for all: further rows repeat the first device, and what becomes of them is not looked at.
        fixed = self.step.fixed_size
        if fixed:
            states = [rows_of_state(state, torch.from_numpy(self._filled(active))) for state in states]
        taken, devices = self._taking(rows, cohort.device, active)
        losses = torch.zeros(steps, active, dtype=torch.float64)
        ended: list[list[TrainState]] = []
        for step in range(steps):
            still = int(np.searchsorted(-cohort.steps, -step, side="left"))
            if still < active:
                ended.append([rows_of_state(state, slice(still, active)) for state in states])
                if not fixed:
                    states = [rows_of_state(state, slice(0, still)) for state in states]
                active = still
                taken, devices = self._taking(rows, cohort.device, active)
            places, sizes = table.step(step, active)
            if fixed:
                wide = np.minimum(np.arange(self.batch_size), places.shape[1] - 1)
                tall = self._filled(active)
                places, sizes = places[tall[:, np.newaxis], wide], sizes[tall]
            batch = self._examples(np.take_along_axis(taken, places, axis=1))
            if self.attackers is not None:
                batch = Examples(batch.x, self.attackers.targets(batch.y, devices))
            try:
                stepped = [
                    self.step(state, batch.x, batch.y, sizes, hyper)
                    for state, hyper in zip(states, hypers, strict=True)
                ]
            except (RuntimeError, ValueError, IndexError) as exc:
                hint = ". Batch norm cannot train on one example: choose a training.batch_size that leaves none over"
                raise InputError(
                    f"the task's model fails on batches of {int(sizes.min())} to {int(sizes.max())} examples of "
                    f"{active} devices: {exc}{hint if sizes.min() == 1 else ''}"
                ) from exc
            losses[step, :active] = stepped[0][0][:active].cpu()
            states = [state for _, state in stepped]
        ended.append([rows_of_state(state, slice(0, active)) for state in states])
        parts = zip(*reversed(ended), strict=True)
        return [joined_states(list(part)) if len(part) > 1 else part[0] for part in parts], losses.numpy()

    def _taking(
        self, rows: npt.NDArray[np.int64], device: npt.NDArray[np.int64], active: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The training rows and the indices of the devices that a step is computed for."""
        part = self._filled(active) if self.step.fixed_size else slice(active)
        return rows[part], device[part]

    def _filled(self, active: int) -> npt.NDArray[np.int64]:
        """Rows of a full chunk: the first ``active``, then the first one again."""
        row = np.arange(max(self.chunk, active))
        return np.where(row < active, row, 0)

    def _examples(self, rows: npt.NDArray[np.int64]) -> Examples:
        """The examples ``[k, b, ...]`` at ``rows`` ``[k, b]``."""
        examples = self.data.examples.take(torch.from_numpy(rows))
        return examples if self.device == "cpu" else Examples(examples.x.to(self.device), examples.y.to(self.device))

    def _updates(self, trained: Trained, broadcast: Tensors, device_state: Tensors) -> tuple[Update, Tensors]:
        """What the devices report, and their next states, stacked."""
        update = self.algorithm.client_update

        def one(
            delta: Tensors, buffers: Tensors, steps: torch.Tensor, personal: Tensors, state: Tensors
        ) -> tuple[dict[str, Tensors], Tensors]:
            work = Trained(update=Update(delta, buffers), steps=steps, hyper=trained.hyper, personal=personal)
            report, after = update(work, broadcast, state)
            return report.groups(), after

        given = (trained.update.delta, trained.update.buffers, trained.steps, trained.personal, device_state)
        if self._maps:
            try:
                groups, after = torch.vmap(one)(*given)
            except (RuntimeError, ValueError, TypeError):
                self._maps = False
            else:
                return Update(**groups), after
        rows = [
            one(*(row_of(part, row) if isinstance(part, dict) else part[row] for part in given))  # type: ignore[arg-type]
            for row in range(len(trained.steps))
        ]
        groups = {name: stacked([report[name] for report, _ in rows]) for name in rows[0][0]}
        return Update(**groups), stacked([after for _, after in rows])

    def _measured(self, weights: Weights, held_out: PaddedRows, *, own: bool) -> dict[str, Floats]:
        """Means of loss and metrics over the devices' held-out examples, nan where a device has none.

        ``own``: each device's own weights, stacked; otherwise all have these.
        """
        rows, counts = held_out
        width = rows.shape[1]
        if width == 0:
            return {}
        parts = []
        at_once = max(1, _EVALUATED_AT_ONCE // width)
        for start in range(0, len(rows), at_once):
            part = slice(start, start + at_once)
            values = weights
            if own:
                trainable, buffers = (
                    {name: value[part] for name, value in tensors.items()}
                    for tensors in (weights.trainable, weights.buffers)
                )
                values = replace(weights, trainable=trainable, buffers=buffers)
            parts.append(self._values(values, self._examples(rows[part]), own=own))
        within = np.arange(width) < counts[:, np.newaxis]
        return {
            name: np.where(
                counts > 0,
                np.where(within, np.concatenate([part[name] for part in parts]), 0.0).sum(axis=1)
                / np.maximum(counts, 1),
                np.nan,
            )
            for name in parts[0]
        }

    def _values(self, weights: Weights, examples: Examples, *, own: bool) -> dict[str, Floats]:
        """Loss and metrics of each example, ``[k, b]``."""
        model, task = self.train_step.model, self.task
        model.eval()

        def one(trainable: Tensors, buffers: Tensors, x: torch.Tensor, y: torch.Tensor) -> Tensors:
            with self.step.running():
                output = functional_call(model, (trainable, buffers, weights.frozen), (x,))
            return {"loss": task.loss(output, y)} | task.metrics(output, y)

        if own:
            dims = (0, 0 if weights.buffers else None, 0, 0)
            with torch.no_grad():
                values = torch.vmap(one, in_dims=dims)(weights.trainable, weights.buffers, examples.x, examples.y)
        else:
            shape = examples.x.shape[:2]
            with torch.no_grad():
                flat = one(weights.trainable, weights.buffers, examples.x.flatten(0, 1), examples.y.flatten(0, 1))
            values = {name: value.reshape(shape) for name, value in flat.items()}
        return {name: value.to(torch.float64).cpu().numpy() for name, value in values.items()}


def _expanded(tensors: Tensors, like: Tensors, count: int) -> Tensors:
    """Stacked as they are, or one device's for all."""
    return {
        name: value if value.dim() > like[name].dim() else value.expand(count, *value.shape)
        for name, value in tensors.items()
    }


def _moved(tensors: Tensors, device: str) -> Tensors:
    return {name: value.to(device) for name, value in tensors.items()}


def _moved_weights(weights: Weights, device: str) -> Weights:
    return Weights(
        trainable=_moved(weights.trainable, device),
        buffers=_moved(weights.buffers, device),
        frozen=_moved(weights.frozen, device),
    )
