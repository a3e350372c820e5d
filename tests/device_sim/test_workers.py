import os
import signal
from collections.abc import Sequence
from functools import partial

import numpy as np
import pytest
import torch
from tiny import make_client, tiny_weights

from pocketfleet.device_sim.chunk_result import ChunkResult
from pocketfleet.device_sim.client import Client
from pocketfleet.device_sim.cohort import Cohort, chunks
from pocketfleet.device_sim.workers import Workers, one_torch_thread
from pocketfleet.errors import PocketfleetError
from pocketfleet.training.weights import Tensors


def cohort(size: int) -> Cohort:
    numbers = range(size)
    return Cohort.of_devices(
        [number % 4 for number in numbers], steps=[1 + number % 3 for number in numbers], batch_seed=list(numbers)
    )


def no_states(chunk: Cohort) -> Tensors:
    return {}


def results(processes: int, of: Cohort, *, size: int = 4, versions: Sequence[float] = (0.5,)) -> list[ChunkResult]:
    models = {number: (tiny_weights(w), {}) for number, w in enumerate(versions)}
    with Workers(make_client, processes=processes) as workers:
        return list(workers.train(chunks(of, size=size), models, no_states))


def test_results_come_in_order_and_alike_from_one_process_and_two() -> None:
    alone, shared = results(1, cohort(21)), results(2, cohort(21))
    # 21 devices by four: five chunks of four and one of one.
    assert [len(result.cohort) for result in shared] == [4, 4, 4, 4, 4, 1]
    assert sorted(np.concatenate([result.cohort.place for result in shared])) == list(range(21))
    for one, other in zip(alone, shared, strict=True):
        assert one.cohort.place.tolist() == other.cohort.place.tolist()
        assert torch.equal(one.part.result().delta["w"], other.part.result().delta["w"])
        assert torch.equal(one.own_model["w"], other.own_model["w"])
        assert one.train_loss.tolist() == other.train_loss.tolist()
        assert {name: values.tolist() for name, values in one.metrics_after.items()} == {
            name: values.tolist() for name, values in other.metrics_after.items()
        }


def test_each_chunk_trains_from_its_own_version() -> None:
    work = cohort(8)
    work.model_version[:] = [0, 1, 0, 1, 2, 2, 0, 1]
    starts = (0.5, 3.0, -1.0)
    for processes in (1, 2):
        found = results(processes, work, versions=starts)
        assert [int(result.cohort.model_version[0]) for result in found] == [0, 1, 2]
        for result in found:
            version = int(result.cohort.model_version[0])
            assert set(result.cohort.model_version) == {version}
            # Towards y = d + 1 each step halves the distance that is left.
            left = (result.cohort.device + 1.0 - starts[version]) * 0.5**result.cohort.steps
            assert result.own_model["w"].tolist() == pytest.approx(result.cohort.device + 1.0 - left)


class Dying(Client):
    """A client whose process is killed when it trains."""

    def train_chunk(self, *_: object) -> ChunkResult:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("not reached")


def make_dying() -> Client:
    client = make_client()
    return Dying(**{name: getattr(client, name) for name in Client.__slots__})


def test_a_worker_that_dies_is_an_error_that_says_how_to_go_on() -> None:
    with Workers(make_dying, processes=2) as workers, pytest.raises(PocketfleetError, match="--resume"):
        list(workers.train(chunks(cohort(4), size=2), {0: (tiny_weights(), {})}, no_states))


def test_a_worker_raises_what_the_client_raises() -> None:
    unknown = Cohort.of_devices([99])
    with Workers(partial(make_client), processes=2) as workers, pytest.raises(IndexError):
        list(workers.train([unknown], {0: (tiny_weights(), {})}, no_states))


def test_the_number_of_threads_is_restored() -> None:
    before = torch.get_num_threads()
    with one_torch_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
