"""Bundles, and what PyTorch makes of them: the references that the app's trainer is held against on a JVM.

    python tests/android_demo/reference_updates.py OUT

Of each case below ``OUT/<case>`` then holds ``bundle/``, ``case.json`` and, for each run's seed,
``<seed>-examples.safetensors`` (what the device trains on), ``<seed>-update.safetensors`` (the report, as the codec
writes it), ``<seed>-trained.safetensors`` (the weights and buffers at the end) and ``<seed>-predicted.safetensors``
(their outputs, loss and metrics). A JVM draws the batches and masks itself.

==========  =====================================================================================
case        what it is for
==========  =====================================================================================
boston      the demo on two phones: a scaled, small network; plain SGD
mnist       LeNet-5 with momentum: convolution and pooling
terms       every role of an input: buffers, slots, frozen, anchor, correction, dice; all of SGD's terms
moments     Adam's slots, of which two do not start at zero
official    ExecuTorch's own trainer, batches of one size; SGD with all its terms
==========  =====================================================================================
"""

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from pocketfleet.device_sim.client import Assignment, Client
from pocketfleet.device_sim.device_data import DeviceData
from pocketfleet.export.bundle import Bundle
from pocketfleet.export.exporter import export_task
from pocketfleet.export.manifest import MANIFEST_FILE, file_sha256
from pocketfleet.export.session import EagerSession
from pocketfleet.training.adaptation import Adaptation, adapted
from pocketfleet.training.algorithms.fedavg import FedAvg
from pocketfleet.training.batches import batch_indices
from pocketfleet.training.codec import LosslessCodec
from pocketfleet.training.draws import draw_key, normal, permutation
from pocketfleet.training.dropout import step_seeds
from pocketfleet.training.examples import Examples
from pocketfleet.training.model_task import ModelTask
from pocketfleet.training.server_optimizer import ServerSgd
from pocketfleet.training.task import Task, initial_model, load_task
from pocketfleet.training.train_step import StepSettings, TrainState, hyper_tensors
from pocketfleet.training.update import tensors_to_bytes, update_of
from pocketfleet.training.weights import Tensors, Weights
from pocketfleet.whole_folder import whole_folder

STEPS = 50
# Held back from the examples of a run, for predictions.
PREDICTED = 6


@dataclass(frozen=True, kw_only=True)
class Case:
    """How one bundle is exported, and how devices train with it."""

    name: str
    task: Task
    settings: StepSettings
    hyper: Mapping[str, float]
    batch_size: int
    seeds: tuple[int, ...]
    adaptation: Adaptation = field(default_factory=Adaptation)
    training_module: bool = False


class Terms(nn.Module):
    """A frozen layer, batch normalisation, and two layers that drop."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(6, 12)
        self.norm = nn.BatchNorm1d(12)
        self.hidden = nn.Linear(12, 10)
        self.head = nn.Linear(10, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = nn.functional.dropout(torch.relu(self.norm(self.body(x))), 0.2, self.training)
        hidden = nn.functional.dropout(torch.tanh(self.hidden(hidden)), 0.5, self.training)
        output: torch.Tensor = self.head(hidden)
        return output


def drawn(*shape: int, seed: int) -> torch.Tensor:
    """Normal numbers."""
    count = torch.Size(shape).numel()
    return torch.from_numpy(normal(draw_key(seed, "reference"), count)).to(torch.float32).reshape(shape)


def small_task(model: nn.Module) -> ModelTask:
    """A classification of three classes by six features; the model's weights are drawn."""
    with torch.no_grad():
        for seed, value in enumerate(model.parameters()):
            value.copy_(drawn(*value.shape, seed=seed) * 0.5)
    x = drawn(60, 6, seed=11)
    y = (x[:, 0] > 0).long() + (x[:, 1] > 0).long()
    return ModelTask(model, nn.CrossEntropyLoss(reduction="none"), (x, y), metrics=_metrics)


def _metrics(output: torch.Tensor, target: torch.Tensor) -> Tensors:
    return {"accuracy": (output.argmax(1) == target).float()}


def cases() -> Iterator[Case]:
    """All of them; rates as in the packaged experiments."""
    boston, seeds = load_task("boston"), tuple(range(5))
    yield Case(
        name="boston",
        task=boston,
        settings=StepSettings(),
        hyper={"learning_rate": 0.001},
        batch_size=8,
        seeds=seeds,
    )
    yield Case(
        name="mnist",
        task=load_task("mnist"),
        settings=StepSettings(momentum=True),
        hyper={"learning_rate": 0.05, "momentum": 0.9},
        batch_size=16,
        seeds=seeds,
    )
    sgd = {"learning_rate": 0.05, "momentum": 0.9, "weight_decay": 0.01}
    yield Case(
        name="terms",
        task=small_task(Terms()),
        settings=StepSettings(
            momentum=True, nesterov=True, weight_decay=True, proximal=True, clipping=True, correction=True
        ),
        hyper={**sgd, "proximal_mu": 0.1, "max_norm": 1.5},
        # Of 54 examples the last batch holds 6: batch normalisation has no single one to train on.
        batch_size=12,
        seeds=seeds,
        adaptation=Adaptation(trainable=("norm.*", "hidden.*", "head.*")),
    )
    yield Case(
        name="moments",
        task=small_task(nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 3))),
        settings=StepSettings(optimizer="adam", weight_decay=True),
        hyper={"learning_rate": 0.01, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8, "weight_decay": 0.01},
        batch_size=7,
        seeds=seeds,
    )
    yield Case(
        name="official",
        task=boston,
        settings=StepSettings(momentum=True, nesterov=True, weight_decay=True),
        hyper={**sgd, "learning_rate": 0.0001},
        batch_size=8,
        seeds=seeds,
        training_module=True,
    )


def write_case(case: Case, folder: Path) -> None:
    """Export the bundle and train with PyTorch."""
    folder.mkdir()
    bundle = export_task(
        case.task,
        out=folder / "bundle",
        settings=case.settings,
        hyper=case.hyper,
        max_batch=case.batch_size,
        adaptation=case.adaptation,
        only="executorch",
        training_module=case.training_module,
    )
    task = adapted(case.task, case.adaptation)
    session = EagerSession(task, initial_model(task, seed=0), case.settings)
    for seed in case.seeds:
        training, held = _examples(case, seed)
        if case.settings.correction:
            update, end = _corrected(case, session, bundle, training, seed)
        else:
            update, end = _by_client(case, session, bundle, training, seed)
        trained = Weights(trainable=end.trainable, buffers=end.buffers, frozen=bundle.weights().frozen)
        predicted = {"output": session.predict(trained, held.x), **_evaluated(session, trained, held)}
        parts = {
            "examples": tensors_to_bytes({"x": training.x, "y": training.y, "held_x": held.x, "held_y": held.y}),
            "update": update,
            "trained": tensors_to_bytes(end.trainable | end.buffers),
            "predicted": tensors_to_bytes(predicted),
        }
        for name, data in parts.items():
            (folder / f"{seed}-{name}.safetensors").write_bytes(data)
    told = {
        "steps": STEPS,
        "batch_size": case.batch_size,
        "seeds": list(case.seeds),
        "hyper": dict(case.hyper),
        "manifest_sha256": file_sha256(folder / "bundle" / MANIFEST_FILE),
    }
    (folder / "case.json").write_text(json.dumps(told), encoding="utf-8")


def _examples(case: Case, seed: int) -> tuple[Examples, Examples]:
    """What the device of a run trains on, and a few that it predicts."""
    if isinstance(case.task, ModelTask):
        examples = case.task.train_examples()
        rows = torch.from_numpy(permutation(draw_key(seed, "reference_rows"), len(examples)))
        return examples.take(rows[PREDICTED:]), examples.take(rows[:PREDICTED])
    data = DeviceData(case.task, kind="iid", devices=20, seed=seed, alpha=1.0, examples_per_device=0)
    # ExecuTorch's own trainer takes whole batches: of 16 examples, two of 8.
    training = data.training(0)
    whole = len(training) // case.batch_size * case.batch_size if case.training_module else len(training)
    return training.take(torch.arange(whole)), data.held_out(1).take(torch.arange(4))


def _evaluated(session: EagerSession, weights: Weights, examples: Examples) -> Tensors:
    return {f"evaluated/{name}": value for name, value in session.evaluate(weights, examples.x, examples.y).items()}


class _Own:
    """One device's examples."""

    def __init__(self, examples: Examples) -> None:
        self._examples = examples

    def training(self, device: int, present: range | None = None) -> Examples:  # noqa: ARG002 - there is one
        return self._examples

    def held_out(self, device: int, present: range | None = None) -> Examples:  # noqa: ARG002
        return self._examples.take(torch.arange(0))


def _by_client(
    case: Case, session: EagerSession, bundle: Bundle, training: Examples, seed: int
) -> tuple[bytes, TrainState]:
    """What the simulator's client reports, and where it ends."""
    client = Client(
        session=session,
        data=_Own(training),
        algorithm=FedAvg(server_optimizer=ServerSgd()),
        settings=case.settings,
        hyper=case.hyper,
        batch_size=case.batch_size,
    )
    weights = bundle.weights()
    result = client.train(Assignment(device=0, steps=STEPS, batch_seed=seed, device_state={}), weights, {})
    own = result.personalised
    end = TrainState(
        trainable={name: own[name] for name in weights.trainable},
        buffers={name: own[name] for name in weights.buffers},
        frozen=weights.frozen,
    )
    return LosslessCodec().encode(result.update), end


def _corrected(
    case: Case, session: EagerSession, bundle: Bundle, training: Examples, seed: int
) -> tuple[bytes, TrainState]:
    """The same steps with a correction of the gradient that is not zero: one hundredth in every value."""
    weights = bundle.weights()
    correction = {name: torch.full_like(value, 0.01) for name, value in weights.trainable.items()}
    state = TrainState.start(weights, case.settings, correction=correction)
    hyper = hyper_tensors(case.settings, case.hyper)
    batches = batch_indices(len(training), steps=STEPS, batch_size=case.batch_size, batch_seed=seed)
    for rows, dice in zip(batches, step_seeds(seed, STEPS), strict=True):
        batch = training.take(torch.from_numpy(rows))
        _, state = session.train_step(state, batch.x, batch.y, hyper, dropout_seed=dice)
    return LosslessCodec().encode(update_of(weights, state)), state


def write_references(out: Path) -> None:
    """Make the folder ``out``; whole or not at all."""
    torch.set_num_threads(1)
    with whole_folder(out) as partial:
        for case in cases():
            write_case(case, partial / case.name)


if __name__ == "__main__":
    write_references(Path(sys.argv[1]))
