"""A ClientApp made of a NumPyClient, as apps were written before the message API."""

from flwr.client import NumPyClient
from flwr.clientapp import ClientApp
from flwr.common import Context

from logistic.task import load_data, log_loss, predict, train


class Client(NumPyClient):
    """One partition's points."""

    def __init__(self, partition: int, *, epochs: int, fails: bool) -> None:
        self.x, self.y = load_data(partition)
        self.partition, self.epochs, self.fails = partition, epochs, fails

    def fit(self, parameters, config):
        """Train on them."""
        if self.fails:
            raise ValueError(f"partition {self.partition} cannot be read")
        weights, loss = train(parameters[0], self.x, self.y, rate=config["learning-rate"], epochs=self.epochs)
        return [weights], len(self.y), {"train_loss": loss}

    def evaluate(self, parameters, config):  # noqa: ARG002 - Flower's signature
        """Evaluate on them."""
        chance = predict(parameters[0], self.x)
        return log_loss(chance, self.y), len(self.y), {"eval_acc": float(((chance > 0.5) == self.y).mean())}


def client_fn(context: Context):
    """The client of a node."""
    partition = int(context.node_config["partition-id"])
    return Client(
        partition,
        epochs=int(context.run_config["local-epochs"]),
        fails=partition == context.run_config["fails-on-partition"],
    ).to_client()


app = ClientApp(client_fn=client_fn)
