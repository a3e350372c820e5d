"""Every packaged algorithm trains one device after the other and many at once alike."""

import pytest
import torch
from both_clients import both_clients, distances

from pocketfleet.device_sim.cohort import Cohort
from pocketfleet.training.algorithm import Algorithm
from pocketfleet.training.algorithms.ditto import Ditto
from pocketfleet.training.algorithms.fedavg import FedAvg
from pocketfleet.training.algorithms.feddyn import FedDyn
from pocketfleet.training.algorithms.fedper import FedPer
from pocketfleet.training.algorithms.fedprox import FedProx
from pocketfleet.training.algorithms.fedsgd import FedSgd
from pocketfleet.training.algorithms.scaffold import Scaffold
from pocketfleet.training.draws import draw_key, normal
from pocketfleet.training.server_optimizer import ServerSgd
from pocketfleet.training.task import load_task
from pocketfleet.training.weights import Tensors

SERVER = ServerSgd()
ALGORITHMS = [
    FedAvg(server_optimizer=SERVER),
    FedProx(server_optimizer=SERVER, proximal_mu=0.5),
    FedSgd(server_optimizer=SERVER),
    Scaffold(server_optimizer=SERVER),
    FedDyn(alpha=0.5),
    Ditto(server_optimizer=SERVER, personal_mu=0.5),
    FedPer(server_optimizer=SERVER, private=("7.*",)),
]
STEPS = (5, 4, 4, 2, 1)


def nudged(tensors: Tensors, purpose: str, *, devices: int = 0) -> Tensors:
    """Other values than at the start, for so many devices or for none."""
    found = {}
    for index, (name, value) in enumerate(tensors.items()):
        drawn = normal(draw_key(8, purpose, index), max(devices, 1) * value.numel())
        shape = (devices, *value.shape) if devices else value.shape
        found[name] = value + 0.01 * torch.from_numpy(drawn).reshape(shape)
    return found


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda algorithm: algorithm.name)
def test_many_at_once_are_one_by_one(algorithm: Algorithm) -> None:
    both = both_clients(
        load_task("boston"),
        devices=5,
        kind="quantity",
        algorithm=algorithm,
        float64=True,
        hyper={"learning_rate": 1e-3},
    )
    cohort = Cohort.of_devices(range(5), steps=STEPS, batch_seed=range(5))
    start = algorithm.device_init(both.weights)
    results = both.results(
        cohort,
        size=3,
        device_state=nudged(start, "state", devices=5),
        broadcast=nudged(algorithm.broadcast(algorithm.init(both.weights)), "broadcast"),
    )
    assert len(results) == 2
    for one, many in results:
        assert many.finite.all()
        assert distances(many.own_model, one.own_model).max() < 1e-9
        reported, expected = many.part.result().groups(), one.part.result().groups()
        for group in ("delta", "extra"):
            assert reported[group].keys() == expected[group].keys()
            for name, value in expected[group].items():
                torch.testing.assert_close(reported[group][name], value, rtol=1e-9, atol=1e-12)
        assert many.device_state.keys() == one.device_state.keys() == start.keys()
        for name, value in one.device_state.items():
            assert value.dtype == torch.float64
            torch.testing.assert_close(many.device_state[name], value, rtol=1e-9, atol=1e-12)
    # Mapped, not looped.
    assert both.batched._maps
