"""The app's round loop beside emulated devices, at one real service: the same updates, and the very model of them."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
import torch
from host_client import started_client

from pocketfleet import Bundle, Experiment
from pocketfleet.device_sim.client import Assignment, Client
from pocketfleet.device_sim.own_examples import OwnExamples, read_table
from pocketfleet.export.session import EagerSession
from pocketfleet.serving_file import read_serving
from pocketfleet.training.algorithm_by_name import load_algorithm
from pocketfleet.training.draws import draw_key, normal, uniform
from pocketfleet.training.server.administration import issue_tokens
from pocketfleet.training.server.blob_folder import BlobFolder
from pocketfleet.training.server.database import DEVICES as ENROLLED
from pocketfleet.training.server.database import MODELS, REPORTS, open_database
from pocketfleet.training.server_optimizer import ServerSgd
from pocketfleet.training.task import load_task
from pocketfleet.training.update import Update, tensors_from_bytes
from pocketfleet.training.weights import Tensors, Weights, tensors_sha256

pytestmark = pytest.mark.android

SEED, ROUNDS, DEVICES, EXAMPLES, BATCH = 3, 5, 4, 25, 8
# The first device is the app's, the others are emulated.
KOTLIN = 0
PATIENCE_S = 300.0


def experiment() -> Experiment:
    return Experiment.from_table(
        {
            "seed": SEED,
            "task": {"name": "boston"},
            "fleet": {"devices": DEVICES, "program": "executorch"},
            "training": {"batch_size": BATCH, "learning_rate": 0.001, "epochs": 2},
            # To be looked at afterwards.
            "service": {"keep_updates": True},
            "rounds": {
                "count": ROUNDS,
                "cohort": DEVICES,
                "over_selection": 1.0,
                "minimum_ratio": 1.0,
                "deadline_s": 3600.0,
            },
        }
    )


def write_examples(path: Path, device: int) -> None:
    """Prices that depend on 13 numbers, of each device's own kind."""
    x = normal(draw_key(SEED, "features", device), EXAMPLES * 13).reshape(EXAMPLES, 13)
    y = x @ uniform(draw_key(SEED, "truth"), 13) + 0.1 * device
    rows = np.column_stack([x, y]).astype(np.float32)
    names = ",".join([*(f"x{column}" for column in range(13)), "price"])
    np.savetxt(path, rows, delimiter=",", header=names, comments="", fmt="%.9g")


@contextmanager
def process(log: Path, *arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
    """``pocketfleet`` with these arguments, ended at the latest with the block."""
    program = "import sys; from pocketfleet.cli import main; sys.argv = ['pocketfleet', *sys.argv[1:]]; main()"
    with log.open("wb") as output:
        running = subprocess.Popen(
            [sys.executable, "-c", program, *arguments],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        try:
            yield running
        finally:
            running.kill()
            running.wait()


def wait_for(what: str, log: Path, condition: Any) -> Any:  # noqa: ANN401
    until_s = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert time.monotonic() < until_s, f"{what} did not come about: {log.read_text()}"
        threading.Event().wait(0.1)
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of five rounds that were lived through."""
    place = tmp_path_factory.mktemp("same-round")
    state, log = place / "state", place / "serve.log"
    (place / "experiment.toml").write_text(experiment().to_toml())
    with ExitStack() as stack:
        served = ["serve", str(place / "experiment.toml"), "--state", str(state), "--port", "0"]
        stack.enter_context(process(log, *served))
        url = wait_for("the service", log, lambda: read_serving(state)).url
        devices = []
        for device in range(DEVICES):
            examples = place / f"{device}.csv"
            write_examples(examples, device)
            (token,) = issue_tokens(state)
            own = place / f"{device}.log"
            if device == KOTLIN:
                given = [url, token, str(examples), str(place / "kotlin"), str(ROUNDS)]
                devices.append((own, stack.enter_context(started_client(own, *given))))
            else:
                # Boston's whole training takes a phone a second; its rounds are not what is looked at.
                given = ["--token", token, "--data", str(examples), "--state", str(place / f"device-{device}")]
                given += ["--runtime", "executorch", "--speed", "20", "--availability", "always"]
                joined = process(own, "join", url, *given, "--rounds", str(ROUNDS))
                devices.append((own, stack.enter_context(joined)))
            # Devices are numbered in the order in which they enrol.
            wait_for(f"device {device}", own, lambda device=device: len(rows(state, ENROLLED)) > device)
        for own, running in devices:
            assert wait_for("the end", own, lambda running=running: running.poll() is not None)
            assert running.returncode == 0, own.read_text()
    return place


def rows(state: Path, table: sa.Table, *order: Any) -> list[Any]:  # noqa: ANN401
    database = open_database(state, "")
    try:
        with database.connect() as connection:
            return list(connection.execute(sa.select(table).order_by(*order)).all())
    finally:
        database.dispose()


def reported(state: Path, report: Any) -> Tensors:  # noqa: ANN401
    return tensors_from_bytes((state / "updates" / f"{report.assignment}-{report.sha256}.update").read_bytes())


def version(state: Path, model: Any, bundle: Bundle) -> Weights:  # noqa: ANN401
    first = bundle.weights()
    found = tensors_from_bytes(BlobFolder(state / "files").path(model.weights_sha256).read_bytes())
    return Weights(
        trainable={name: found[name] for name in first.trainable},
        buffers={name: found[name] for name in first.buffers},
        frozen=first.frozen,
    )


def simulated(bundle: Bundle, weights: Weights, examples: Path, *, round_: int, device: int) -> Update:
    """What the simulator's client makes of the same weights in eager PyTorch."""
    task = load_task("boston")
    data = OwnExamples(read_table(examples).examples(bundle.signature))
    client = Client(
        session=EagerSession(task, task.make_model(), bundle.settings),
        data=data,
        algorithm=load_algorithm("fedavg", {}, server_optimizer=ServerSgd()),
        settings=bundle.settings,
        hyper={**bundle.hyper, "learning_rate": 0.001},
        batch_size=BATCH,
    )
    seed = int(draw_key(SEED, "batch_seed", round_, device)) >> 1
    steps = 2 * -(-len(data.training(0)) // BATCH)
    work = Assignment(device=0, steps=steps, batch_seed=seed, device_state={})
    return client.train(work, weights, {}).update


def test_every_report_is_the_simulators_update(place: Path) -> None:
    state = place / "state"
    bundle = Bundle.load(state / "bundle")
    models = rows(state, MODELS, MODELS.c.version)
    reports = rows(state, REPORTS, REPORTS.c.counted_in, REPORTS.c.device)
    assert [(one.counted_in, one.device) for one in reports] == [
        (round_, device) for round_ in range(ROUNDS) for device in range(DEVICES)
    ]
    errors: dict[bool, list[float]] = {True: [], False: []}
    for one in reports:
        weights = version(state, models[one.counted_in], bundle)
        examples = place / f"{one.device}.csv"
        expected = simulated(bundle, weights, examples, round_=one.counted_in, device=one.device).delta
        found = reported(state, one)
        difference = torch.cat([(found[name] - expected[name]).flatten() for name in expected])
        whole = torch.cat([value.flatten() for value in expected.values()])
        errors[one.device == KOTLIN].append(float(difference.norm() / whole.norm()))
    for of_kotlin, found_errors in errors.items():
        print(
            f"{'app' if of_kotlin else 'emulated'}: median {np.median(found_errors):.1e}, most {max(found_errors):.1e}"
        )
        assert max(found_errors) < 1e-3
        assert np.median(found_errors) < 1e-5


def test_each_model_is_the_reports_aggregate_to_the_bit(place: Path) -> None:
    state = place / "state"
    bundle = Bundle.load(state / "bundle")
    models = rows(state, MODELS, MODELS.c.version)
    reports = rows(state, REPORTS, REPORTS.c.counted_in, REPORTS.c.device)
    for round_ in range(ROUNDS):
        before = version(state, models[round_], bundle)
        of_round = [one for one in reports if one.counted_in == round_]
        shares = torch.tensor([one.num_examples for one in of_round], dtype=torch.float64)
        updates = [reported(state, one) for one in of_round]
        after = {}
        for name, value in before.trainable.items():
            deltas = torch.stack([update[name].flatten() for update in updates]).to(torch.float64)
            mean = ((shares @ deltas) / shares.sum()).reshape(value.shape)
            after[name] = (value.to(torch.float64) + mean).to(torch.float32)
        assert tensors_sha256(after) == models[round_ + 1].model_sha256
