"""A ClientApp of the message API that counts in its own state how often it trained."""

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from logistic.task import load_data, log_loss, predict, train

app = ClientApp()


@app.train()
def train_on_own(msg: Message, context: Context) -> Message:
    """Train on this partition's points."""
    partition = int(context.node_config["partition-id"])
    if partition == context.run_config["fails-on-partition"]:
        raise ValueError(f"partition {partition} cannot be read")
    x, y = load_data(partition)
    weights, loss = train(
        msg.content["arrays"].to_numpy_ndarrays()[0],
        x,
        y,
        rate=msg.content["config"]["learning-rate"],
        epochs=int(context.run_config["local-epochs"]),
    )
    trained = context.state.setdefault("trained", MetricRecord({"times": 0}))
    trained["times"] += 1
    metrics = MetricRecord({"train_loss": loss, "times": trained["times"], "num-examples": len(y)})
    content = RecordDict({"arrays": ArrayRecord(numpy_ndarrays=[weights]), "metrics": metrics})
    return Message(content=content, reply_to=msg)


@app.evaluate()
def evaluate_on_own(msg: Message, context: Context) -> Message:
    """Evaluate on this partition's points."""
    x, y = load_data(int(context.node_config["partition-id"]))
    chance = predict(msg.content["arrays"].to_numpy_ndarrays()[0], x)
    metrics = MetricRecord(
        {"eval_loss": log_loss(chance, y), "eval_acc": float(((chance > 0.5) == y).mean()), "num-examples": len(y)}
    )
    return Message(content=RecordDict({"metrics": metrics}), reply_to=msg)
