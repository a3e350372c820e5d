import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

from pocketfleet.errors import InputError
from pocketfleet.training.algorithm import Algorithm, Trained
from pocketfleet.training.algorithms.ditto import Ditto
from pocketfleet.training.algorithms.fedavg import FedAvg
from pocketfleet.training.algorithms.feddyn import FedDyn
from pocketfleet.training.algorithms.fedper import FedPer
from pocketfleet.training.algorithms.scaffold import Scaffold
from pocketfleet.training.server_optimizer import ServerMomentum, ServerSgd
from pocketfleet.training.traffic import Traffic
from pocketfleet.training.update import Update
from pocketfleet.training.weights import Tensors, Weights

SERVER = ServerSgd()
WEIGHTS = Weights(
    trainable={"body": torch.ones(3, 2), "head": torch.ones(2)},
    buffers={"count": torch.tensor(0)},
    frozen={"scale": torch.ones(9)},
)
HYPER = {"learning_rate": 0.1}


def names(traffic: Traffic) -> dict[str, Any]:
    return {
        **{group: sorted(tensors) for group, tensors in traffic.report.groups().items()},
        **{part: sorted(getattr(traffic, part)) for part in ("weights", "broadcast", "first")},
        "models": traffic.models,
    }


PLAIN = {
    "delta": ["body", "head"],
    "buffers": ["count"],
    "extra": [],
    "weights": ["body", "count", "head"],
    "broadcast": [],
    "first": [],
    "models": 1,
}


@pytest.mark.parametrize(
    ("algorithm", "expected"),
    [
        # The server's own momentum goes nowhere.
        (FedAvg(server_optimizer=ServerMomentum()), {}),
        (FedDyn(alpha=0.5), {}),
        (Scaffold(server_optimizer=ServerMomentum()), {"extra": ["body", "head"], "broadcast": ["body", "head"]}),
        (Ditto(server_optimizer=SERVER, personal_mu=1.0), {"models": 2}),
        (
            FedPer(server_optimizer=SERVER, private=("head",)),
            {"delta": ["body"], "weights": ["body", "count"], "first": ["head"]},
        ),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_what_travels(algorithm: Algorithm, expected: dict[str, Any]) -> None:
    assert names(Traffic.of(algorithm, WEIGHTS, HYPER)) == PLAIN | expected


def test_it_is_as_large_as_the_model() -> None:
    traffic = Traffic.of(Scaffold(server_optimizer=SERVER), WEIGHTS, HYPER)
    for tensors in (traffic.report.delta, traffic.report.extra, traffic.broadcast):
        assert [(name, tuple(value.shape), value.dtype) for name, value in sorted(tensors.items())] == [
            ("body", (3, 2), torch.float32),
            ("head", (2,), torch.float32),
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reporting(FedAvg):
    """Reports and keeps what it is told to."""

    report: Callable[[Trained, Tensors], tuple[Update, Tensors]]
    name: str = "mine"

    def device_init(self, weights: Weights) -> Tensors:  # noqa: ARG002
        return {"kept": torch.zeros(2)}

    def client_update(self, trained: Trained, broadcast: Tensors, device_state: Tensors) -> tuple[Update, Tensors]:  # noqa: ARG002
        return self.report(trained, device_state)


@pytest.mark.parametrize(
    ("report", "message"),
    [
        (
            lambda trained, state: (replace(trained.update, delta={"tail": torch.ones(2)}), state),
            "reports 'tail' among its delta, which this model does not have: what is no weight and no buffer belongs "
            "into extra",
        ),
        (
            lambda trained, state: (replace(trained.update, buffers={"sum": torch.ones(2)}), state),
            "reports 'sum' among its buffers, which this model does not have",
        ),
        (
            lambda trained, state: (replace(trained.update, delta={"body": torch.ones(2)}), state),
            "must report 'body' among its delta in the model's shape (3, 2), got (2,)",
        ),
        (
            lambda trained, _: (trained.update, {}),
            "must keep the names, types and shapes that its device_init gave, {'kept': (torch.float32, (2,))}, got {} "
            "from client_update",
        ),
        (
            lambda trained, state: (trained.update, {"kept": state["kept"].double()}),
            "must keep the names, types and shapes that its device_init gave",
        ),
        (lambda trained, state: (trained.update, state["lost"]), "fails: KeyError: 'lost'"),
    ],
)
def test_what_does_not_fit_is_refused(
    report: Callable[[Trained, Tensors], tuple[Update, Tensors]], message: str
) -> None:
    with pytest.raises(InputError, match=f"^algorithm 'mine' {re.escape(message)}"):
        Traffic.of(Reporting(server_optimizer=SERVER, report=report), WEIGHTS, HYPER)


def test_what_an_algorithm_itself_refuses_is_told_in_its_words() -> None:
    with pytest.raises(InputError, match=r"^algorithm\.private must name some of"):
        Traffic.of(FedPer(server_optimizer=SERVER, private=("tail",)), WEIGHTS, HYPER)
