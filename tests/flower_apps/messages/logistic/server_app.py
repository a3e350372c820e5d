"""A ServerApp of the message API: FedAvg from zero, its final weights and metrics into a file."""

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from logistic.task import DIMENSIONS

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the rounds."""
    config = context.run_config
    nodes = int(config["min-nodes"])
    strategy = FedAvg(
        fraction_train=config["fraction-train"],
        fraction_evaluate=config["fraction-evaluate"],
        min_train_nodes=nodes,
        min_evaluate_nodes=nodes,
        min_available_nodes=nodes,
    )
    result = strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord(numpy_ndarrays=[np.zeros(DIMENSIONS + 1)]),
        num_rounds=int(config["num-server-rounds"]),
        train_config=ConfigRecord({"learning-rate": config["learning-rate"]}),
    )
    if config["out"]:
        losses = [record["eval_loss"] for _, record in sorted(result.evaluate_metrics_clientapp.items())]
        times = [record["times"] for _, record in sorted(result.train_metrics_clientapp.items())]
        np.savez(config["out"], weights=result.arrays.to_numpy_ndarrays()[0], losses=losses, times=times)
