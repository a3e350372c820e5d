"""Rounds that are lived through at a real service, and what the simulator makes of the same weights and examples."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa

from pocketfleet import Bundle, Experiment
from pocketfleet.device_sim.client import Assignment, Client
from pocketfleet.device_sim.own_examples import OwnExamples, read_table
from pocketfleet.export.session import EagerSession
from pocketfleet.training.algorithm_by_name import load_algorithm
from pocketfleet.training.draws import draw_key, normal, uniform
from pocketfleet.training.server.database import open_database
from pocketfleet.training.server_optimizer import ServerSgd
from pocketfleet.training.task import load_task
from pocketfleet.training.update import Update
from pocketfleet.training.weights import Weights

__all__ = ["SEED", "batch_seed", "body", "experiment", "process", "rows", "simulated", "wait_for", "write_examples"]

SEED, EXAMPLES, BATCH = 3, 25, 8
PATIENCE_S = 300.0


def experiment(*, rounds: int, devices: int, **sections: Any) -> Experiment:  # noqa: ANN401
    """Boston's, on ``devices`` who are in every round; ``sections`` beside those."""
    return Experiment.from_table(
        {
            "seed": SEED,
            "task": {"name": "boston"},
            "fleet": {"devices": devices, "program": "executorch"},
            "training": {"batch_size": BATCH, "learning_rate": 0.001, "epochs": 2},
            # To be looked at afterwards.
            "service": {"keep_updates": True},
            "rounds": {
                "count": rounds,
                "cohort": devices,
                "over_selection": 1.0,
                "minimum_ratio": 1.0,
                "deadline_s": 3600.0,
            },
            **sections,
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
    """What ``condition`` gives, once it gives something; ``log`` is told where that does not come about."""
    until_s = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert time.monotonic() < until_s, f"{what} did not come about: {log.read_text()}"
        threading.Event().wait(0.1)
    return found


def rows(state: Path, table: sa.Table, *order: Any) -> list[Any]:  # noqa: ANN401
    """All of a service's table."""
    database = open_database(state, "")
    try:
        with database.connect() as connection:
            return list(connection.execute(sa.select(table).order_by(*order)).all())
    finally:
        database.dispose()


def body(state: Path, report: Any) -> bytes:  # noqa: ANN401
    """A report's, as it came."""
    return (state / "updates" / f"{report.assignment}-{report.sha256}.update").read_bytes()


def batch_seed(*, round_: int, device: int) -> int:
    """Of a device's batches in a round, as services draw it."""
    return int(draw_key(SEED, "batch_seed", round_, device)) >> 1


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
    seed = batch_seed(round_=round_, device=device)
    steps = 2 * -(-len(data.training(0)) // BATCH)
    work = Assignment(device=0, steps=steps, batch_seed=seed, device_state={})
    return client.train(work, weights, {}).update
