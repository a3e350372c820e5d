"""Ray's own test cluster on this machine: a head without CPUs and three machines of one CPU each."""

import os
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from both_clients import distances
from tiny import make_client, tiny_weights
from twenty_rounds import FLEETS, start, trainer, twenty_rounds

from pocketfleet.device_sim.chunk_result import ChunkResult
from pocketfleet.device_sim.client import Client
from pocketfleet.device_sim.cluster import RayWorkers
from pocketfleet.device_sim.cluster_actor import installed
from pocketfleet.device_sim.cohort import Cohort, chunks
from pocketfleet.device_sim.workers import Workers
from pocketfleet.errors import InputError, PocketfleetError
from pocketfleet.training.aggregation import MeanAggregator
from pocketfleet.training.weights import Tensors

# Ray wants 75 MB for a machine's object store at least.
NODE = {"object_store_memory": 100_000_000, "node_ip_address": "127.0.0.2"}
MODELS = {number: (tiny_weights(w), {}) for number, w in enumerate((0.5, 3.0, -1.0))}


class Machines:
    """The cluster; what a test takes away it puts back."""

    def __init__(self, cluster: Any) -> None:  # noqa: ANN401 - Ray has no types here
        self._cluster = cluster
        self.nodes = [self._added() for _ in range(3)]

    def _added(self) -> Any:  # noqa: ANN401 - Ray has no types here
        return self._cluster.add_node(num_cpus=1, **NODE)

    def kill(self, number: int) -> None:
        self._cluster.remove_node(self.nodes[number], allow_graceful=False)
        self.nodes[number] = None

    def restore(self) -> None:
        self.nodes = [node or self._added() for node in self.nodes]


@pytest.fixture(scope="module")
def running() -> Iterator[Machines]:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **NODE})
    try:
        machines = Machines(cluster)
        ray.init(address=cluster.address, log_to_driver=False)
        yield machines
    finally:
        ray.shutdown()
        cluster.shutdown()


@pytest.fixture
def machines(running: Machines) -> Machines:
    running.restore()
    return running


def no_states(chunk: Cohort) -> Tensors:
    return {}


def work(size: int = 50) -> list[Cohort]:
    """Chunks of two devices, of three versions."""
    numbers = np.arange(size)
    cohort = Cohort.of_devices(list(numbers % 4), steps=list(1 + numbers % 3), batch_seed=list(numbers))
    cohort.model_version[:] = numbers % 3
    return list(chunks(cohort, size=2))


def alone(of: list[Cohort]) -> list[ChunkResult]:
    with Workers(make_client, processes=1) as workers:
        return list(workers.train(of, MODELS, no_states))


def assert_same_bits(found: list[ChunkResult], wanted: list[ChunkResult]) -> None:
    sums = []
    for results in (found, wanted):
        total = MeanAggregator()
        for result in results:
            total.merge(result.part)
        sums.append(total.result().delta["w"])
    assert torch.equal(*sums)
    assert len(found) == len(wanted) > 20
    for one, other in zip(found, wanted, strict=True):
        assert one.cohort.place.tolist() == other.cohort.place.tolist()
        assert torch.equal(one.own_model["w"], other.own_model["w"])
        assert one.train_loss.tolist() == other.train_loss.tolist()
        assert {name: values.tolist() for name, values in one.metrics_after.items()} == {
            name: values.tolist() for name, values in other.metrics_after.items()
        }


def plain(folder: str) -> Client:
    return make_client()


def test_a_cluster_gives_the_bits_of_one_process_and_a_machine_that_dies_loses_nothing(machines: Machines) -> None:
    wanted = alone(work())
    with RayWorkers(plain) as workers:
        assert_same_bits(list(workers.train(work(), MODELS, no_states)), wanted)
        # An error of the trainer is the trainer's own, and the actors go on.
        with pytest.raises(IndexError) as raised:
            list(workers.train([Cohort.of_devices([99])], MODELS, no_states))
        assert "train_chunk" in raised.value.__notes__[0]
        assert workers.deaths == 0

        results = workers.train(work(), MODELS, no_states)
        found = [next(results)]
        machines.kill(1)
        found += results
        assert_same_bits(found, wanted)
        # More than one where Ray still wanted to start the replacement on the dead machine.
        deaths = workers.deaths
        assert deaths >= 1

        # A machine that joins is used from the next round on.
        machines.restore()
        assert_same_bits(list(workers.train(work(), MODELS, no_states)), wanted)
        assert workers.deaths == deaths

        results = workers.train(work(), MODELS, no_states)
        next(results)
        for number in range(3):
            machines.kill(number)
        with pytest.raises(PocketfleetError, match=r"nobody is left in the cluster.*--resume"):
            list(results)


# Of the tasks, the quickest to start; all in ``make test-all``.
@pytest.mark.parametrize(
    "task", [pytest.param(task, marks=() if task == "boston" else pytest.mark.long) for task in FLEETS]
)
def test_models_agree_within_a_billionth_after_twenty_rounds(machines: Machines, task: str) -> None:
    with Workers(partial(trainer, task, batched=False), processes=1) as workers:
        plain = twenty_rounds(task, workers, size=1)
    assert distances(plain, start(task)).max() > 0.01
    with RayWorkers(partial(trainer, task, batched=True), processes=2) as workers:
        assert distances(twenty_rounds(task, workers, size=3), plain).max() < 1e-9


class Dying(Client):
    """A client whose process is killed when it trains devices of version 1, as often as there are files to remove."""

    folder: Path

    def train_chunk(self, cohort: Cohort, *rest: Any) -> ChunkResult:  # noqa: ANN401 - as the parent
        marks = list(self.folder.iterdir())
        if marks and cohort.model_version[0] == 1:
            marks[0].unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().train_chunk(cohort, *rest)


def make_dying(marks: Path, folder: str) -> Client:
    client = make_client()
    # Of the class: clients are frozen, and this process makes one.
    Dying.folder = marks
    return Dying(**{name: getattr(client, name) for name in Client.__slots__})


def test_a_process_that_is_killed_is_replaced_but_not_by_a_chunk_that_kills_them_all(
    machines: Machines, tmp_path: Path
) -> None:
    (tmp_path / "one").touch()
    with RayWorkers(partial(make_dying, tmp_path), processes=1) as workers:
        assert_same_bits(list(workers.train(work(), MODELS, no_states)), alone(work()))
        assert workers.deaths == 1
        for number in range(9):
            (tmp_path / str(number)).touch()
        with pytest.raises(PocketfleetError, match="has ended 3 processes of the cluster"):
            list(workers.train(work(), MODELS, no_states))
        # Three deaths of nine that were possible, and the one before.
        assert workers.deaths == 4


def from_files(folder: str) -> Client:
    told = Path(folder, "inner", "told.txt").read_text()
    Path(told).write_text(f"{folder}\n{Path.cwd()}\n{torch.get_num_threads()}")
    return make_client()


def fails(folder: str) -> Client:
    raise InputError("training.such is wrong")


def test_files_travel_and_are_removed_and_a_trainer_that_cannot_be_made_says_so(
    machines: Machines, tmp_path: Path
) -> None:
    seen = tmp_path / "seen.txt"
    with RayWorkers(from_files, processes=1, files={"inner/told.txt": str(seen).encode()}):
        folder, where, threads = seen.read_text().splitlines()
        assert Path(folder).is_dir()
    assert not Path(folder).exists()
    assert (where, threads) == (str(Path.cwd()), "1")
    with pytest.raises(InputError, match=r"^training\.such is wrong"), RayWorkers(fails, processes=1):
        pytest.fail("not reached")


def test_a_machine_with_other_versions_is_refused(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    other: Callable[[], dict[str, str]] = lambda: {**installed(), "torch": "1.0"}  # noqa: E731
    monkeypatch.setattr("pocketfleet.device_sim.cluster.installed", other)
    with pytest.raises(InputError, match=r"has torch .* \(here: 1\.0\)"), RayWorkers(plain, processes=1):
        pytest.fail("not reached")


def test_a_process_that_is_connected_elsewhere(machines: Machines) -> None:
    with pytest.raises(InputError, match=r'engine\.address is "10\.0\.0\.1:1", and this process is connected to'):
        RayWorkers(plain, address="10.0.0.1:1").__enter__()
