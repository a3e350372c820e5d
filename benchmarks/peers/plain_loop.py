"""Federated averaging as one writes it by hand: a PyTorch loop, on one process or several of one thread each.

Usage: python plain_loop.py FOLDER RESULT.json ROUNDS PROCESSES
"""

import functools
import multiprocessing
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
from learner import losses, make_model
from result import Result, versions
from workload import Workload

__all__ = ["Loop", "main", "play"]

Weights = dict[str, torch.Tensor]


class Loop:
    """Trains devices one after another on one model object."""

    def __init__(self, workload: Workload) -> None:
        self._workload = workload
        self._model = make_model(workload.model)

    def train(self, weights: Weights, round_index: int, places: range) -> Weights:
        """The sum of the trained weights of a part of a round's cohort."""
        workload, model = self._workload, self._model
        total = {name: torch.zeros_like(value) for name, value in weights.items()}
        for place in places:
            model.load_state_dict(weights)
            optimizer = torch.optim.SGD(model.parameters(), lr=workload.learning_rate)
            x, y = workload.visit(round_index, place)
            for start in range(0, len(x), workload.batch_size):
                stop = start + workload.batch_size
                optimizer.zero_grad()
                losses(workload.model, model(x[start:stop]), y[start:stop]).mean().backward()
                optimizer.step()
            for name, value in model.state_dict().items():
                total[name] += value
        return total

    def evaluate(self, weights: Weights) -> float:
        """The mean loss on the common test examples."""
        self._model.load_state_dict(weights)
        x, y = self._workload.test()
        with torch.no_grad():
            return float(losses(self._workload.model, self._model(x), y).mean())


_loop: Loop | None = None


def _start(folder: Path) -> None:
    global _loop
    torch.set_num_threads(1)
    _loop = Loop(Workload.load(folder))


def _train(weights: Weights, round_index: int, places: range) -> Weights:
    assert _loop is not None
    return _loop.train(weights, round_index, places)


def play(
    workload: Workload, rounds: int, train: Callable[[Weights, int], Weights], evaluate: Callable[[Weights], float]
) -> tuple[float, list[float]]:
    """Seconds of ``rounds`` rounds, and the loss before the first and after each.

    Args:
        workload: gives the initial weights and the cohort's size.
        rounds: how many.
        train: the sum of the cohort's trained weights; all devices have equally many examples.
        evaluate: the loss of weights.
    """
    weights = workload.initial_weights()
    started = time.perf_counter()
    curve = [evaluate(weights)]
    for round_index in range(rounds):
        total = train(weights, round_index)
        weights = {name: value / workload.cohorts.shape[1] for name, value in total.items()}
        curve.append(evaluate(weights))
    return time.perf_counter() - started, curve


def main() -> None:
    """Warm up with one round, then run all, and write what was measured."""
    folder, out, rounds, processes = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    torch.set_num_threads(1)
    workload = Workload.load(folder)
    cohort = workload.cohorts.shape[1]
    loop = Loop(workload)
    if processes == 1:
        train = functools.partial(loop.train, places=range(cohort))
        play(workload, 1, train, loop.evaluate)
        seconds, curve = play(workload, rounds, train, loop.evaluate)
    else:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(processes, mp_context=context, initializer=_start, initargs=(folder,)) as pool:

            def train(weights: Weights, round_index: int) -> Weights:
                parts = [range(first, cohort, processes) for first in range(processes)]
                sums = [pool.submit(_train, weights, round_index, part) for part in parts]
                done = [each.result() for each in sums]
                return {name: sum(part[name] for part in done) for name in weights}

            play(workload, 1, train, loop.evaluate)
            seconds, curve = play(workload, rounds, train, loop.evaluate)
    Result(
        system=f"plain PyTorch loop, {processes} process{'es' if processes > 1 else ''}",
        workload=workload.name,
        seconds=seconds,
        device_steps=rounds * cohort * workload.steps,
        losses=curve,
        versions=versions("torch", "numpy"),
    ).save(out)


if __name__ == "__main__":
    main()
