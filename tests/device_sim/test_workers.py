import os
import signal
from functools import partial

import pytest
import torch
from tiny import make_client, tiny_weights

from pocketfleet.device_sim.client import Assignment, Client, ClientResult
from pocketfleet.device_sim.workers import Workers, one_torch_thread
from pocketfleet.errors import PocketfleetError


def cohort(size: int) -> list[Assignment]:
    return [Assignment(device=n % 4, steps=1 + n % 3, batch_seed=n, device_state={}) for n in range(size)]


def results(processes: int, size: int) -> list[ClientResult]:
    with Workers(make_client, processes=processes) as workers:
        return list(workers.train(cohort(size), tiny_weights(0.5), {}))


def test_results_come_in_order_and_alike_from_one_process_and_two() -> None:
    alone, shared = results(1, 21), results(2, 21)
    assert [result.device for result in shared] == [work.device for work in cohort(21)]
    for one, other in zip(alone, shared, strict=True):
        assert torch.equal(one.update.delta["w"], other.update.delta["w"])
        assert one.train_loss == other.train_loss
        assert one.metrics_after == other.metrics_after


class Dying(Client):
    """A client whose process is killed when it trains."""

    def train(self, *_: object) -> ClientResult:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("not reached")


def make_dying() -> Client:
    client = make_client()
    return Dying(**{name: getattr(client, name) for name in Client.__slots__})


def test_a_worker_that_dies_is_an_error_that_says_how_to_go_on() -> None:
    with Workers(make_dying, processes=2) as workers, pytest.raises(PocketfleetError, match="--resume"):
        list(workers.train(cohort(4), tiny_weights(), {}))


def test_a_worker_raises_what_the_client_raises() -> None:
    with Workers(partial(make_client), processes=2) as workers, pytest.raises(IndexError):
        list(workers.train([Assignment(device=99, steps=1, batch_seed=0, device_state={})], tiny_weights(), {}))


def test_the_number_of_threads_is_restored() -> None:
    before = torch.get_num_threads()
    with one_torch_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
