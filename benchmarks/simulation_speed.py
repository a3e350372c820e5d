"""How much longer a simulation takes than a plain PyTorch loop that does the same device-steps, in one run.

Both train LeNet-5 on the same devices' examples, with one torch thread in one process. The plain loop is what one
would write by hand: load the global weights, ``torch.optim.SGD``, forward, backward, step, average. Export and imports
are left out of both; physics, events, evaluation, personalisation, device store and checkpoints are in the simulation.

Usage: python benchmarks/simulation_speed.py [--rounds 40] [--repeats 1]
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from pocketfleet import Experiment, Run, simulate
from pocketfleet.device_sim.device_data import DeviceData
from pocketfleet.training.batches import batch_indices
from pocketfleet.training.draws import draw_key
from pocketfleet.training.task import initial_model, load_task

SETTINGS = (
    "fleet.devices=100",
    "rounds.evaluate_every=1",
    "engine.processes=1",
)


def accepted_work(run: Run) -> dict[int, list[tuple[int, int]]]:
    """``(device, steps)`` of every accepted report, by round, in order of device."""
    events = run.events
    accepted = events[(events["kind"] == "report") & (events["reason"] == "accepted")][["round", "device"]]
    trained = events[events["kind"] == "train"][["round", "device", "steps"]]
    work = accepted.merge(trained, on=["round", "device"]).sort_values(["round", "device"])
    return {int(index): list(zip(rows["device"], rows["steps"], strict=True)) for index, rows in work.groupby("round")}


def plain_loop(experiment: Experiment, rounds: dict[int, list[tuple[int, int]]]) -> tuple[int, float, float]:
    """Federated averaging by hand; returns device-steps, seconds and the last test loss."""
    task = load_task(experiment.task.name)
    model = initial_model(task, seed=experiment.seed)
    data = DeviceData(task, devices=experiment.fleet.devices, seed=experiment.seed, **experiment.partition.model_dump())
    training, steps_done = experiment.training, 0
    started_s = time.perf_counter()
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    for index, devices in rounds.items():
        total = {name: torch.zeros_like(value) for name, value in weights.items()}
        seen = 0
        for device, steps in devices:
            model.load_state_dict(weights)
            optimizer = torch.optim.SGD(model.parameters(), lr=training.learning_rate, momentum=training.momentum)
            examples = data.training(device)
            # The assignment's own seed, so that both see the same batches.
            seed = int(draw_key(experiment.seed, "batch_seed", index, device) >> np.uint64(1))
            count = 0
            for rows in batch_indices(len(examples), steps=steps, batch_size=training.batch_size, batch_seed=seed):
                batch = examples.take(torch.from_numpy(rows))
                optimizer.zero_grad()
                task.loss(model(batch.x), batch.y).mean().backward()
                optimizer.step()
                count += len(rows)
            for name, value in model.state_dict().items():
                total[name] += value * count
            seen += count
            steps_done += steps
        weights = {name: value / seen for name, value in total.items()}
        with torch.no_grad():
            model.load_state_dict(weights)
            loss = float(task.loss(model(data.test.x), data.test.y).mean())
    return steps_done, time.perf_counter() - started_s, loss


def measure(rounds: int) -> dict[str, float]:
    """Simulate, repeat the accepted work by hand, compare."""
    experiment = Experiment.load("mnist-fleet", [*SETTINGS, f"rounds.count={rounds}"])
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as folder:
            run = simulate(experiment, Path(folder) / "run")
            steps, plain_s, plain_loss = plain_loop(experiment, accepted_work(run))
            simulated_s, counted = run.summary["wall_seconds"], run.summary["device_steps"]
            loss = run.summary["metrics"]["last"]["test_loss"]
    finally:
        torch.set_num_threads(before)
    assert steps == counted, f"the plain loop did {steps} device-steps, the simulation {counted}"
    # The same batches from the same weights: the models drift apart by rounding alone.
    assert abs(loss - plain_loss) < 0.1 * plain_loss, f"test loss {loss} against {plain_loss} by hand"
    return {
        "device_steps": steps,
        "simulation_s": simulated_s,
        "plain_s": plain_s,
        "ratio": simulated_s / plain_s,
        "test_loss": loss,
        "plain_test_loss": plain_loss,
    }


def main() -> None:
    """Print one row a repeat."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the rows here too")
    arguments = parser.parse_args()
    rows = [measure(arguments.rounds) for _ in range(arguments.repeats)]
    print(pd.DataFrame(rows).to_string(index=False))
    print("goal: at least 20,000 device-steps at a ratio under 1.3")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
