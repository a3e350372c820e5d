"""Every key of an experiment reaches what it is meant for: seconds, bytes, memory, batches, the steps themselves.

What is expected is worked out here from a bundle's files, from the phones and by plain ``torch.optim``, never by
``simulation.py``.
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn.utils import clip_grad_norm_

from pocketfleet import Bundle, Experiment, Run, simulate
from pocketfleet.device_sim.compute import step_seconds
from pocketfleet.device_sim.device_data import DeviceData
from pocketfleet.device_sim.efficiency import load_profile
from pocketfleet.device_sim.fleet import build_fleet
from pocketfleet.device_sim.memory import HEADROOM_RATIO, RUNTIME_BYTES
from pocketfleet.device_sim.operator_class import operator_classes
from pocketfleet.export.exporter import export_task
from pocketfleet.training.batches import batch_indices
from pocketfleet.training.codec import LosslessCodec
from pocketfleet.training.draws import draw_key
from pocketfleet.training.task import initial_model, load_task
from pocketfleet.training.train_step import StepSettings
from pocketfleet.training.update import Update

Program = Literal["executorch", "onnx"]

PHONES = ("Pixel 8", "Redmi Note 9")
SEED = 3
BATCH_SIZE = 8
# What every test starts from: phones that are always there with full batteries; all are asked, all are wanted.
BASE: dict[str, dict[str, Any]] = {
    "task": {"name": "boston"},
    "fleet": {"devices": 2, "phones": list(PHONES), "overrides": [{"devices": "all", "battery_ratio": 1.0}]},
    "training": {"batch_size": BATCH_SIZE, "learning_rate": 0.001, "steps": 2},
    "rounds": {"count": 1, "cohort": 2, "over_selection": 1.0, "minimum_ratio": 0.5},
}


def experiment(bundle: Bundle, **sections: dict[str, Any]) -> Experiment:
    """``BASE`` with this bundle and with keys of sections changed."""
    given = {"task": {"bundle": str(bundle.path)}, **sections}
    table = {name: BASE.get(name, {}) | given.get(name, {}) for name in {**BASE, **given}}
    return Experiment.from_table({"seed": SEED, **table})


def rows(run: Run, kind: str, *, device: int | None = None) -> Any:  # noqa: ANN401 - a pandas table
    events = run.events[run.events["kind"] == kind]
    return events if device is None else events[events["device"] == device]


def hashes(run: Run) -> tuple[str, str]:
    return run.summary["model_sha256"], run.summary["events_sha256"]


# Memory.


@pytest.mark.parametrize("program", ["executorch", "onnx"])
def test_a_phone_a_little_short_of_the_programs_memory_is_left_out(
    program: Program, boston_bundle: Bundle, tmp_path: Path
) -> None:
    other: Program = "onnx" if program == "executorch" else "executorch"
    planned_bytes, others_bytes = (boston_bundle.footprint(name).training_memory_bytes for name in (program, other))
    limit_bytes = (planned_bytes + RUNTIME_BYTES) / (1.0 - HEADROOM_RATIO)
    # The runtime's 64 MiB dominate. Nearer than the plan itself (17 kB) and than the two plans are to each other (28
    # bytes), so that neither a plan of 0 nor the other program's would tell these two phones apart.
    near_bytes = 10.0
    assert planned_bytes > 10_000
    assert abs(planned_bytes - others_bytes) > near_bytes
    overrides = [
        {"devices": "all", "battery_ratio": 1.0},
        {"devices": [0], "free_memory_bytes": limit_bytes + near_bytes},
        {"devices": [1], "free_memory_bytes": limit_bytes - near_bytes},
    ]
    run = simulate(
        experiment(boston_bundle, fleet={"program": program, "overrides": overrides}, rounds={"deadline_s": 60.0}),
        tmp_path / "run",
    )
    assert (run.devices["ineligible_low_memory"] > 0).tolist() == [False, True]
    assert run.summary["ineligible"] == {"low_memory": 1}
    assert rows(run, "assign")["device"].tolist() == [0]


# Bytes, seconds, steps.


@pytest.fixture(scope="module")
def by_program(boston_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """Two rounds of 7 steps, the phones running the one program or the other."""
    folder = tmp_path_factory.mktemp("by_program")
    changed = {"training": {"steps": 7}, "rounds": {"count": 2}}
    return {
        name: simulate(experiment(boston_bundle, fleet={"program": name}, **changed), folder / name)
        for name in ("executorch", "onnx")
    }


@pytest.mark.parametrize("program", ["executorch", "onnx"])
def test_bytes_are_those_of_the_runs_own_files_and_of_a_real_update(
    program: Program, by_program: dict[str, Run]
) -> None:
    run = by_program[program]
    bundle = Bundle.load(run.path / "bundle")
    weights_bytes = (bundle.path / "weights.safetensors").stat().st_size
    for device in (0, 1):
        assert rows(run, "download", device=device)["bytes"].tolist() == [
            bundle.download_bytes(program) + weights_bytes,
            weights_bytes,
        ]
    start, end = bundle.weights().trainable, store(run, device=0, round_index=1)
    update = Update({name: end[name] - start[name] for name in start}, {})
    assert set(rows(run, "upload")["bytes"]) == {len(LosslessCodec().encode(update))}
    assert len(rows(run, "upload")) == 4


@pytest.mark.parametrize("program", ["executorch", "onnx"])
def test_training_takes_the_seconds_of_the_programs_operators(program: Program, by_program: dict[str, Run]) -> None:
    run = by_program[program]
    operators = Bundle.load(run.path / "bundle").footprint(program).at("train_step", batch=BATCH_SIZE)
    fleet = build_fleet(devices=2, seed=SEED, phones=PHONES)
    expected_s = 7 * step_seconds(
        kind=operator_classes(operators),
        flops=[operator.flops for operator in operators],
        bytes=[operator.bytes for operator in operators],
        peak_flops=fleet.peak_flops,
        memory_bytes_per_s=fleet.memory_bytes_per_s,
        efficiency=load_profile().efficiency(program),
    )
    for device in (0, 1):
        trained = rows(run, "train", device=device)
        assert trained["seconds"].tolist() == pytest.approx([expected_s[device]] * 2, rel=1e-9)
        assert trained["steps"].tolist() == [7, 7]


def test_the_program_changes_seconds_and_bytes_but_not_the_steps_or_the_model(by_program: dict[str, Run]) -> None:
    executorch, onnx = by_program["executorch"], by_program["onnx"]
    for run, name in ((executorch, "executorch"), (onnx, "onnx")):
        assert run.summary["program"] == name
    assert executorch.summary["device_steps"] == onnx.summary["device_steps"] == 2 * 2 * 7
    assert executorch.summary["model_sha256"] == onnx.summary["model_sha256"]
    for kind, column in (("train", "seconds"), ("download", "seconds"), ("download", "bytes")):
        ours, theirs = (
            {device: rows(run, kind, device=device)[column].iloc[0] for device in (0, 1)} for run in (executorch, onnx)
        )
        assert all(ours[device] != theirs[device] for device in (0, 1)), (kind, column)


@pytest.mark.parametrize(
    "training",
    [
        {"steps": 3, "epochs": 2, "batch_size": 8},
        {"steps": 0, "epochs": 1, "batch_size": 8},
        {"steps": 0, "epochs": 2, "batch_size": 8},
        {"steps": 0, "epochs": 2, "batch_size": 5},
    ],
    ids=["steps", "epoch", "epochs", "batch_size"],
)
def test_steps_are_as_many_as_asked_for_or_as_the_epochs_take(
    training: dict[str, int], boston_bundle: Bundle, tmp_path: Path
) -> None:
    fleet = {"devices": 3, "phones": [*PHONES, "Pixel 8"]}
    partition = {"kind": "quantity", "alpha": 3.0}
    run = simulate(
        experiment(boston_bundle, fleet=fleet, partition=partition, training=training, rounds={"cohort": 3}),
        tmp_path / "run",
    )
    examples = run.devices["num_training"].tolist()
    # Sizes of their own, some with a last batch that is not full.
    assert len(set(examples)) == 3
    assert any(n % training["batch_size"] for n in examples)
    steps = [training["steps"] or training["epochs"] * math.ceil(n / training["batch_size"]) for n in examples]
    assert [rows(run, "train", device=device)["steps"].tolist() for device in range(3)] == [[n] for n in steps]
    assert run.summary["device_steps"] == sum(steps)


# Rounds.


def gaps(run: Run) -> np.ndarray[Any, Any]:
    return np.diff(run.rounds["opened_s"].to_numpy())


def test_rounds_of_phones_that_are_always_there_open_every_interval(boston_bundle: Bundle, tmp_path: Path) -> None:
    run = simulate(experiment(boston_bundle, rounds={"count": 4, "interval_s": 1000.0}), tmp_path / "run")
    assert gaps(run).tolist() == [1000.0] * 3
    without = simulate(experiment(boston_bundle, rounds={"count": 4}), tmp_path / "without")
    assert len(gaps(without)) == 3
    assert gaps(without).max() < 1000.0


def test_rounds_of_phones_with_a_day_of_their_own_open_an_interval_apart_or_later(
    boston_bundle: Bundle, tmp_path: Path
) -> None:
    # Three phones, one report wanted: many a round waits until a phone is back on its charger.
    fleet = {"devices": 3, "phones": [], "availability": "flash-2020"}
    rounds = {"count": 8, "interval_s": 20_000.0, "cohort": 1}
    run = simulate(experiment(boston_bundle, fleet=fleet, rounds=rounds), tmp_path / "run")
    opened_s = run.rounds["opened_s"].to_numpy()
    assert run.summary["rounds"] == 8
    # Added, not subtracted: late in the run a difference of times is rounded.
    assert (opened_s[1:] >= opened_s[:-1] + 20_000.0).all()
    assert (opened_s[1:] > opened_s[:-1] + 20_001.0).any()


# Who computes: never in the events, and as many processes as one likes.


def test_processes_that_run_the_exported_program_give_the_hashes_of_one(boston_bundle: Bundle, tmp_path: Path) -> None:
    runs = [
        simulate(
            experiment(boston_bundle, rounds={"count": 2}, engine={"runtime": "executorch", "processes": processes}),
            tmp_path / str(processes),
        )
        for processes in (1, 2)
    ]
    assert hashes(runs[0]) == hashes(runs[1])
    # The program itself computes: its bits are not those of eager PyTorch.
    eager = simulate(experiment(boston_bundle, rounds={"count": 2}), tmp_path / "eager")
    assert eager.summary["events_sha256"] == runs[0].summary["events_sha256"]
    assert eager.summary["model_sha256"] != runs[0].summary["model_sha256"]


# The terms of a step.


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """The hyper-parameters of ``[training]`` under their own names."""

    learning_rate: float = 0.002
    momentum: float = 0.8
    nesterov: bool = True
    weight_decay: float = 0.2
    # Gradients of the untrained model have norms of about 100: nearly every step is clipped.
    max_norm: float = 20.0

    def table(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


ALL = Terms()
PLAIN = Terms(momentum=0.0, nesterov=False, weight_decay=0.0, max_norm=0.0, learning_rate=0.0001)
STEPS = 12


def store(run: Run, *, device: int, round_index: int) -> dict[str, torch.Tensor]:
    """The model that a device's training gave."""
    updates = run.updates
    assert updates[updates["device"] == device]["round"].max() == round_index
    return dict(run.personalised(device).trainable)


def published(run: Run) -> dict[str, torch.Tensor]:
    """The trainable weights of the run's latest model version."""
    latest = max((run.path / "checkpoints").iterdir())
    tensors = load_file(latest / "tensors.safetensors")
    prefix = f"{int(tensors['version'])}/trainable/"
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def by_hand(terms: Terms) -> dict[str, torch.Tensor]:
    """What ``torch.optim.SGD`` makes of device 0's model in round 0."""
    task = load_task("boston")
    model = initial_model(task, seed=SEED).train()
    data = DeviceData(task, kind="iid", devices=1, seed=SEED, alpha=1.0, examples_per_device=0)
    model.load_state_dict(data.scaling(model), strict=False)
    examples = data.training(0)
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=terms.learning_rate,
        momentum=terms.momentum,
        nesterov=terms.nesterov,
        weight_decay=terms.weight_decay,
    )
    batch_seed = int(draw_key(SEED, "batch_seed", 0, 0)) >> 1
    for batch in batch_indices(len(examples), steps=STEPS, batch_size=BATCH_SIZE, batch_seed=batch_seed):
        x, y = examples.x[torch.from_numpy(batch)], examples.y[torch.from_numpy(batch)]
        optimizer.zero_grad()
        task.loss(model(x), y).mean().backward()
        if terms.max_norm > 0.0:
            clip_grad_norm_(model.parameters(), terms.max_norm)
        optimizer.step()
    return {name: value.detach() for name, value in model.named_parameters()}


def farthest(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    assert sorted(found) == sorted(expected)
    return max(float((found[name] - expected[name]).abs().max()) for name in expected)


@pytest.fixture(scope="module")
def all_terms_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Boston for every term of SGD, its defaults those of no test."""
    return export_task(
        load_task("boston"),
        out=tmp_path_factory.mktemp("terms") / "bundle",
        settings=StepSettings(momentum=True, nesterov=True, weight_decay=True, clipping=True),
        hyper={"learning_rate": 1e-3, "momentum": 0.5, "weight_decay": 0.01, "max_norm": 1.0},
        max_batch=BATCH_SIZE,
        task_path="boston",
    )


@pytest.mark.parametrize("runtime", ["torch", "executorch", "onnx"])
@pytest.mark.parametrize(
    "terms",
    [
        PLAIN,
        replace(PLAIN, learning_rate=0.0003),
        ALL,
        replace(ALL, learning_rate=0.001),
        replace(ALL, momentum=0.3),
        replace(ALL, weight_decay=0.02),
        replace(ALL, max_norm=5.0),
    ],
    ids=["plain", "plain-learning_rate", "all", "learning_rate", "momentum", "weight_decay", "max_norm"],
)
def test_one_phone_moves_the_model_as_torch_optim_does(
    terms: Terms, runtime: str, boston_bundle: Bundle, all_terms_bundle: Bundle, tmp_path: Path
) -> None:
    run = simulate(
        experiment(
            all_terms_bundle if terms.nesterov else boston_bundle,
            fleet={"devices": 1, "phones": ["Pixel 8"]},
            training={"steps": STEPS, **terms.table()},
            rounds={"cohort": 1},
            engine={"runtime": runtime},
        ),
        tmp_path / "run",
    )
    expected = by_hand(terms)
    assert farthest(store(run, device=0, round_index=0), expected) < 1e-6
    # One report under FedAvg is the next model.
    assert farthest(published(run), expected) < 1e-6


@pytest.mark.parametrize("key", ["learning_rate", "momentum", "nesterov", "weight_decay", "max_norm"])
def test_each_term_counts_in_what_the_model_is_compared_with(key: str) -> None:
    # So the comparison above would notice a term that is lost: switched off (a rate: halved), it moves the model far.
    without = {"learning_rate": ALL.learning_rate / 2, "momentum": 0.0, "nesterov": False}
    without |= {"weight_decay": 0.0, "max_norm": 1e9}
    changed = {key: without[key]} | ({"nesterov": False} if key == "momentum" else {})
    assert farthest(by_hand(replace(ALL, **changed)), by_hand(ALL)) > 1e-4
