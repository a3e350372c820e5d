"""The devices' side of the Flower run: an app that trains one device of a workload.

A module of its own, so that Ray's processes import it: an app of the main script would be unpickled for every message,
and read its data anew each time.
"""

import functools
from pathlib import Path

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from learner import losses, make_model
from workload import Workload

__all__ = ["app"]

app = ClientApp()


@functools.cache
def _of(folder: str) -> tuple[Workload, torch.nn.Module]:
    torch.set_num_threads(1)
    workload = Workload.load(Path(folder))
    return workload, make_model(workload.model)


@app.train()
def train(message: Message, context: Context) -> Message:  # noqa: ARG001 - Flower's signature
    """One device's round: load the weights, train one pass in the order laid down, send the weights back."""
    config = message.content["config"]
    workload, model = _of(config["folder"])
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    optimizer = torch.optim.SGD(model.parameters(), lr=workload.learning_rate)
    x, y = workload.visit(config["round"], config["place"])
    for start in range(0, len(x), workload.batch_size):
        stop = start + workload.batch_size
        optimizer.zero_grad()
        losses(workload.model, model(x[start:stop]), y[start:stop]).mean().backward()
        optimizer.step()
    content = RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": MetricRecord({"num-examples": len(x)})})
    return Message(content=content, reply_to=message)
