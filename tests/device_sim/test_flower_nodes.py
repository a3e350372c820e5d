import time

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.client import NumPyClient
from flwr.clientapp import ClientApp

from pocketfleet.device_sim.flower_api import FIRST_NODE_ID, Packed, begin_run, stamp, virtual_sleep
from pocketfleet.device_sim.flower_nodes import FlowerNodes

RUN_ID = 5


def nodes(app: ClientApp, devices: int = 3) -> FlowerNodes:
    return FlowerNodes(app, devices=devices, run_id=RUN_ID, run_config={"rate": 0.5})


def message(content: RecordDict | None = None, *, device: int = 0, kind: str = "train") -> Message:
    begin_run(RUN_ID)
    made = Message(content or RecordDict(), FIRST_NODE_ID + device, kind, group_id="4")
    stamp(made, "m1")
    return made


def counting() -> ClientApp:
    app = ClientApp()

    @app.train()
    def train(msg: Message, context: Context) -> Message:
        seen = context.state.setdefault("seen", MetricRecord({"times": 0}))
        seen["times"] += 1
        metrics = MetricRecord({"times": seen["times"], "num-examples": 12})
        return Message(RecordDict({"metrics": metrics}), reply_to=msg)

    return app


def test_a_node_is_told_what_flower_tells_it() -> None:
    found = {}
    app = ClientApp()

    @app.query()
    def query(msg: Message, context: Context) -> Message:
        found.update(node=context.node_id, run=context.run_id, **context.node_config, **context.run_config)
        return Message(RecordDict(), reply_to=msg)

    ran = nodes(app).run(2, message(device=2, kind="query"))
    assert found == {"node": FIRST_NODE_ID + 2, "run": RUN_ID, "partition-id": 2, "num-partitions": 3, "rate": 0.5}
    metadata = ran.reply.metadata
    assert (metadata.reply_to_message_id, metadata.group_id, metadata.message_type) == ("m1", "4", "query")
    assert metadata.src_node_id == FIRST_NODE_ID + 2


def test_state_stays_with_its_node_and_only_where_it_is_kept() -> None:
    fleet = nodes(counting())
    lost = fleet.run(0, message())
    assert (lost.num_examples, lost.metrics) == (12, {"times": 1.0})
    kept = fleet.run(0, message())
    assert kept.metrics == {"times": 1.0}
    fleet.keep(0, kept)
    assert fleet.run(0, message()).metrics == {"times": 2.0}
    assert fleet.run(1, message(device=1)).metrics == {"times": 1.0}


def test_an_app_gets_a_copy_and_bytes_are_those_of_all_objects() -> None:
    app = ClientApp()

    @app.train()
    def train(msg: Message, context: Context) -> Message:
        msg.content["config"]["rate"] = 9.0
        return Message(RecordDict({"arrays": ArrayRecord(numpy_ndarrays=[np.ones(1000)])}), reply_to=msg)

    given = message(RecordDict({"config": ConfigRecord({"rate": 1.0})}))
    ran = nodes(app).run(0, given)
    assert given.content["config"]["rate"] == 1.0
    assert ran.message_bytes == Packed.of(given).bytes
    # 8,000 bytes of doubles, NumPy's header of 128, and what Flower puts around them: under a kilobyte.
    assert 8128 < ran.reply_bytes < 9128
    assert ran.num_examples == 0


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (lambda _: 1 / 0, "ZeroDivisionError: division by zero"),
        (lambda _: None, "TypeError: the ClientApp must return a Message, got NoneType"),
    ],
)
def test_an_app_that_fails_gives_flowers_error_in_place_of_a_reply(answer, reason) -> None:
    app = ClientApp()
    app.train()(lambda msg, _: answer(msg))
    ran = nodes(app).run(0, message())
    # ErrorCode.CLIENT_APP_RAISED_EXCEPTION.
    assert (ran.reply.error.code, ran.reply.error.reason) == (2, reason)
    assert ran.reply.metadata.reply_to_message_id == "m1"
    assert ran.reply_bytes > 0


def test_an_app_without_a_function_for_the_message_gives_an_error() -> None:
    ran = nodes(counting()).run(0, message(kind="evaluate"))
    assert "No evaluate function registered" in ran.reply.error.reason


def test_a_numpy_clients_reply_is_taken_apart() -> None:
    class Client(NumPyClient):
        def evaluate(self, parameters: list[np.ndarray], config: dict) -> tuple[float, int, dict]:  # noqa: ARG002
            return 0.25, 8, {"accuracy": 0.75, "note": "text", "best": True}

    app = ClientApp(client_fn=lambda context: Client().to_client())  # noqa: ARG005 - Flower looks at the name
    content = RecordDict(
        {
            "evaluateins.parameters": ArrayRecord(numpy_ndarrays=[np.ones(2)]),
            "evaluateins.config": ConfigRecord(),
        }
    )
    ran = nodes(app).run(0, message(content, kind="evaluate"))
    assert (ran.num_examples, ran.metrics) == (8, {"loss": 0.25, "accuracy": 0.75})


def test_an_apps_sleep_is_the_phones() -> None:
    app = ClientApp()

    @app.train()
    def train(msg: Message, context: Context) -> Message:
        time.sleep(3600.0)  # noqa: TID251 - what apps do to pose as slow phones
        return Message(RecordDict(), reply_to=msg)

    fleet = nodes(app)
    began_s = time.perf_counter()
    with virtual_sleep(fleet.sleep, lambda: None):
        ran = fleet.run(0, message())
    assert ran.slept_s == 3600.0
    assert time.perf_counter() - began_s < 60.0
    assert not fleet.sleep(1.0)
