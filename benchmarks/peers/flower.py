"""Runs a workload in Flower's simulation: FedAvg over Ray, an actor of one CPU for every core.

Usage: python flower.py FOLDER RESULT.json ROUNDS
"""

import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import torch
from flower_app import app
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.serverapp.strategy.strategy_utils import sample_nodes
from flwr.simulation import run_simulation
from learner import losses, make_model
from result import Result, versions
from workload import Workload

__all__ = ["main"]

# Devices of the warm-up: enough to start every actor and fill its caches.
WARM_UP = 20


class LaidDown(FedAvg):
    """FedAvg whose cohorts are the workload's: as many nodes as it has places, each told which place it is."""

    def __init__(self, folder: Path, cohort: int) -> None:
        super().__init__(fraction_evaluate=0.0, min_train_nodes=cohort, min_available_nodes=cohort)
        self._folder, self._cohort = folder, cohort

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """One message a place; the weights are one record for all."""
        del config
        nodes, _ = sample_nodes(grid, self._cohort, self._cohort)
        return [
            Message(
                content=RecordDict(
                    {
                        self.arrayrecord_key: arrays,
                        self.configrecord_key: ConfigRecord(
                            {"folder": str(self._folder), "round": server_round - 1, "place": place}
                        ),
                    }
                ),
                message_type=MessageType.TRAIN,
                dst_node_id=node,
            )
            for place, node in enumerate(nodes)
        ]


def main() -> None:
    """Warm up with one small round, then run all, and write what was measured."""
    folder, out, rounds = Path(sys.argv[1]).resolve(), Path(sys.argv[2]), int(sys.argv[3])
    workload = Workload.load(folder)
    cohort = workload.cohorts.shape[1]
    model = make_model(workload.model)
    test_x, test_y = workload.test()
    server, curve = ServerApp(), []

    def evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord:
        model.load_state_dict(arrays.to_torch_state_dict())
        with torch.no_grad():
            loss = float(losses(workload.model, model(test_x), test_y).mean())
        curve.append((server_round, loss))
        return MetricRecord({"loss": loss})

    @server.main()
    def serve(grid: Grid, context: Context) -> None:  # noqa: ARG001 - Flower's signature
        initial = ArrayRecord(workload.initial_weights())
        LaidDown(folder, min(cohort, WARM_UP)).start(grid, initial, num_rounds=1, evaluate_fn=evaluate)
        curve.clear()
        started = time.perf_counter()
        LaidDown(folder, cohort).start(grid, initial, num_rounds=rounds, evaluate_fn=evaluate)
        seconds = time.perf_counter() - started
        Result(
            system="Flower",
            workload=workload.name,
            seconds=seconds,
            device_steps=rounds * cohort * workload.steps,
            losses=[loss for _, loss in curve],
            versions=versions("flwr", "ray", "torch", "numpy"),
        ).save(out)

    cores = os.cpu_count() or 1
    run_simulation(
        server_app=server,
        client_app=app,
        num_supernodes=workload.devices,
        backend_config={
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
            "init_args": {"num_cpus": cores, "include_dashboard": False},
        },
    )


if __name__ == "__main__":
    main()
