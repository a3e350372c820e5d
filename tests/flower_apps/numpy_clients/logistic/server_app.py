"""A ServerApp made of a strategy and a configuration, as apps were written before the message API."""

import numpy as np
from flwr.common import Context, ndarrays_to_parameters, parameters_to_ndarrays
from flwr.server import ServerAppComponents, ServerConfig
from flwr.server.strategy import FedAvg
from flwr.serverapp import ServerApp

from logistic.task import DIMENSIONS


class Saving(FedAvg):
    """FedAvg that writes the weights of each round into a file."""

    def __init__(self, out: str, **settings) -> None:
        super().__init__(**settings)
        self.out = out

    def aggregate_fit(self, server_round, results, failures):
        """Average, and write."""
        parameters, metrics = super().aggregate_fit(server_round, results, failures)
        if self.out and parameters is not None:
            np.savez(self.out, weights=parameters_to_ndarrays(parameters)[0], failures=len(failures))
        return parameters, metrics


def server_fn(context: Context) -> ServerAppComponents:
    """What the server runs."""
    config = context.run_config
    strategy = Saving(
        config["out"],
        fraction_fit=config["fraction-train"],
        fraction_evaluate=config["fraction-evaluate"],
        min_fit_clients=int(config["min-nodes"]),
        min_evaluate_clients=int(config["min-nodes"]),
        min_available_clients=int(config["min-nodes"]),
        initial_parameters=ndarrays_to_parameters([np.zeros(DIMENSIONS + 1)]),
        on_fit_config_fn=lambda _: {"learning-rate": config["learning-rate"]},
    )
    return ServerAppComponents(strategy=strategy, config=ServerConfig(num_rounds=int(config["num-server-rounds"])))


app = ServerApp(server_fn=server_fn)
