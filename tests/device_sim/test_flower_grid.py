"""Messages through a grid of phones whose days are scripted and whose work is given."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from scripted import ScriptedDay

from pocketfleet.device_sim.eligibility import Rule
from pocketfleet.device_sim.events import EventLog
from pocketfleet.device_sim.fleet import DeviceOverride, build_fleet
from pocketfleet.device_sim.flower_api import FIRST_NODE_ID, MESSAGE_EXPIRED, NODE_LOST, Packed
from pocketfleet.device_sim.flower_grid import HorizonReached, PhoneGrid
from pocketfleet.device_sim.flower_nodes import FlowerNodes
from pocketfleet.device_sim.flower_phones import FlowerPhones
from pocketfleet.device_sim.phone_work import PhoneWork
from pocketfleet.device_sim.population import Population
from pocketfleet.device_sim.transfer import Outage
from pocketfleet.device_sim.workload import Workload
from pocketfleet.errors import InputError

DEVICES = 4
EXAMPLES = 10
TRAIN_S = 100.0
BUNDLE_BYTES = 5000


def app() -> ClientApp:
    """Says how often it has trained on its phone, and raises on partition 3 when asked to."""
    made = ClientApp()

    @made.train()
    def train(msg: Message, context: Context) -> Message:
        if "fail" in msg.content and context.node_config["partition-id"] == 3:
            raise RuntimeError("partition 3 cannot be read")
        seen = context.state.setdefault("seen", MetricRecord({"times": 0}))
        seen["times"] += 1
        metrics = MetricRecord({"times": seen["times"], "num-examples": EXAMPLES})
        return Message(RecordDict({"metrics": metrics}), reply_to=msg)

    return made


class Bench:
    """A grid with its log; every training takes ``TRAIN_S`` on every phone but those that an override slows down."""

    def __init__(
        self, *gaps: tuple[int, str, float, float], overrides=(), deadline_s: float = 10_000.0, horizon_s: float = 1e6
    ) -> None:
        full = DeviceOverride(devices="all", battery_ratio=1.0, link_losses_per_hour=0.0)
        self.fleet = build_fleet(
            devices=DEVICES, seed=3, overrides=[full, *overrides], phones=["Pixel 8"] * DEVICES, outage=Outage()
        )
        self.log = EventLog()
        ones = np.ones(DEVICES, dtype=np.int64)
        work = Workload(
            num_training=ones,
            steps=ones,
            step_s=np.ones(DEVICES),
            batch_size=1,
            training_memory_bytes=0,
            bundle_bytes=BUNDLE_BYTES,
            weights_bytes=0,
            update_bytes=0,
            partial_work=False,
        )
        self.population = Population(
            fleet=self.fleet,
            availability=ScriptedDay(*gaps),
            rule=Rule(),
            workload=work,
            seed=3,
            log=self.log,
            room_celsius=None,
            memory_moments=False,
        )
        nodes = FlowerNodes(app(), devices=DEVICES, run_id=1, run_config={})
        phones = FlowerPhones(
            population=self.population,
            workload=work,
            nodes=nodes,
            # At an efficiency of 1, EXAMPLES examples take TRAIN_S on a phone of 1 GFLOPS; all peaks are set to that.
            work=PhoneWork(
                phone_flops=np.full(DEVICES, 1e9),
                host_flops=0.0,
                flops_per_example={"train": TRAIN_S * 1e9 / EXAMPLES, "evaluate": 1.0},
                efficiency_ratio=1.0,
            ),
            log=self.log,
            deadline_s=deadline_s,
        )
        self.grid = PhoneGrid(phones, nodes, run_id=1, horizon_s=horizon_s)

    def events(self, kind: str, device: int | None = None):
        table = self.log.take() if not hasattr(self, "_table") else self._table
        self._table = table
        chosen = (table["kind"] == kind) & (True if device is None else table["device"] == device)
        return table[chosen]


def message(device: int, *, fail: bool = False, ttl: float | None = None) -> Message:
    content = RecordDict({"fail": MetricRecord({"yes": 1})}) if fail else RecordDict()
    return Message(content, FIRST_NODE_ID + device, "train", ttl=ttl)


def devices(replies) -> list[int]:
    return [reply.metadata.src_node_id - FIRST_NODE_ID for reply in replies]


def times(reply: Message) -> float:
    return reply.content["metrics"]["times"]


def test_the_clock_goes_to_the_last_reply_and_stages_add_up() -> None:
    bench = Bench()
    sent = [message(device) for device in range(DEVICES)]
    replies = bench.grid.send_and_receive(sent)
    assert sorted(devices(replies)) == [0, 1, 2, 3]
    bench.grid.close()
    trained, down, up = (bench.events(kind).set_index("device") for kind in ("train", "download", "upload"))
    assert trained["seconds"].to_numpy() == pytest.approx(np.full(DEVICES, TRAIN_S))
    assert (trained["steps"] == EXAMPLES).all()
    reports = bench.events("report").set_index("device")["time_s"]
    assert bench.grid.now_s == reports.max()
    for device in range(DEVICES):
        seconds = sum(float(stage["seconds"][device]) for stage in (down, trained, up))
        assert float(reports[device]) == pytest.approx(seconds)
        reply = next(one for one in replies if devices([one]) == [device])
        assert down["bytes"][device] == Packed.of(sent[device]).bytes + BUNDLE_BYTES
        assert up["bytes"][device] == pytest.approx(Packed.of(reply).bytes, abs=8)
    assert devices(replies) == reports.sort_values().index.tolist()


def test_the_bundle_is_downloaded_once() -> None:
    bench = Bench()
    for _ in range(2):
        bench.grid.send_and_receive([message(0)])
    bench.grid.close()
    sizes = bench.events("download")["bytes"].tolist()
    assert sizes[0] - sizes[1] == pytest.approx(BUNDLE_BYTES, abs=8)


def test_only_phones_that_may_train_are_connected() -> None:
    bench = Bench((1, "charging", 0.0, 500.0), (2, "idle", 300.0, 400.0))
    assert bench.grid.get_node_ids() == [FIRST_NODE_ID + device for device in (0, 2, 3)]
    assert bench.grid.sleep(300.0)
    assert bench.grid.get_node_ids() == [FIRST_NODE_ID + device for device in (0, 3)]
    assert bench.grid.sleep(200.0)
    assert bench.grid.get_node_ids() == [FIRST_NODE_ID + device for device in range(DEVICES)]


def test_a_phone_at_work_is_connected_and_one_that_backs_off_is_not() -> None:
    # Phone 1 is picked up at 50 s for a second and backs off until 80 s.
    bench = Bench((1, "idle", 50.0, 51.0))
    bench.grid.push_messages([message(0), message(1)])
    everybody = [FIRST_NODE_ID + device for device in range(DEVICES)]
    for seconds, there in ((20.0, everybody), (40.0, [everybody[0], *everybody[2:]]), (21.0, everybody)):
        bench.grid.sleep(seconds)
        assert bench.grid.get_node_ids() == there


def test_a_message_waits_for_its_phone() -> None:
    bench = Bench((1, "charging", 0.0, 500.0))
    (reply,) = bench.grid.send_and_receive([message(1)])
    assert times(reply) == 1
    assert 500.0 + TRAIN_S < bench.grid.now_s < 510.0 + TRAIN_S
    bench.grid.close()
    assert bench.events("assign")["time_s"].tolist() == [500.0]


def test_a_message_that_no_phone_takes_expires() -> None:
    bench = Bench((1, "charging", 0.0, 500.0), deadline_s=400.0)
    (reply,) = bench.grid.send_and_receive([message(1)])
    assert (reply.error.code, bench.grid.now_s) == (MESSAGE_EXPIRED, 400.0)
    # Its own time to live is shorter.
    (reply,) = bench.grid.send_and_receive([message(0, ttl=50.0)])
    assert (reply.error.code, bench.grid.now_s) == (MESSAGE_EXPIRED, 450.0)
    bench.grid.close()
    assert bench.events("drop")["reason"].tolist() == ["deadline"]


def test_a_phone_that_drops_out_loses_its_work_and_the_server_learns_of_it_later() -> None:
    bench = Bench((1, "idle", 50.0, 60.0))
    first, second = bench.grid.send_and_receive([message(0), message(1)])
    assert times(first) == 1
    assert (second.error.code, "in_use" in second.error.reason) == (NODE_LOST, True)
    # Two heartbeats of 30 s after it was picked up at 50 s; phone 0 was done at about 100 s.
    assert bench.grid.now_s == pytest.approx(110.0)
    assert bench.grid.get_node_ids() == [FIRST_NODE_ID + device for device in range(DEVICES)]
    (again,) = bench.grid.send_and_receive([message(1)])
    assert times(again) == 1
    bench.grid.close()
    assert bench.population.ledger.column["dropped"].tolist() == [0, 1, 0, 0]


def test_an_app_that_raises_is_an_error_reply_and_no_end() -> None:
    bench = Bench()
    replies = bench.grid.send_and_receive([message(device, fail=True) for device in (2, 3)])
    failed = next(reply for reply in replies if reply.has_error())
    assert devices([failed]) == [3]
    assert failed.error.reason == "RuntimeError: partition 3 cannot be read"
    assert sum(not reply.has_error() for reply in replies) == 1
    bench.grid.close()
    reports = bench.events("report").set_index("device")["reason"]
    assert (reports[2], reports[3]) == ("accepted", "app_failed")
    assert bench.grid.exchanges[0].row(model_version=0, until_s=bench.grid.now_s)["accepted"] == 1


def test_who_does_not_answer_in_time_is_not_waited_for() -> None:
    bench = Bench((1, "charging", 0.0, 500.0))
    replies = bench.grid.send_and_receive([message(0), message(1)], timeout=200.0)
    assert devices(replies) == [0]
    assert bench.grid.now_s == 200.0
    bench.grid.sleep(1000.0)
    bench.grid.close()
    assert bench.events("report").set_index("device")["reason"].to_dict() == {0: "accepted", 1: "late"}


def test_a_server_that_waits_for_less_than_a_reply_gets_nothing() -> None:
    bench = Bench()
    assert bench.grid.send_and_receive([message(0)], timeout=5.0) == []
    assert bench.grid.now_s == 5.0
    assert bench.grid.close() == 1
    assert len(bench.events("assign")) == 1
    assert len(bench.events("report")) == 0


def test_messages_to_one_phone_are_worked_on_one_after_the_other() -> None:
    bench = Bench()
    replies = bench.grid.send_and_receive([message(0), message(0), message(0)])
    assert [times(reply) for reply in replies] == [1, 2, 3]
    assert 3 * TRAIN_S < bench.grid.now_s < 3 * TRAIN_S + 10.0


def test_pushed_messages_are_pulled_when_they_are_there() -> None:
    bench = Bench((1, "charging", 0.0, 500.0))
    ids = bench.grid.push_messages([message(0), message(1)])
    assert bench.grid.now_s == 0.0
    assert bench.grid.pull_messages(ids) == []
    assert bench.grid.now_s == 0.0
    bench.grid.sleep(TRAIN_S + 10.0)
    assert devices(bench.grid.pull_messages(ids)) == [0]
    assert bench.grid.pull_messages(ids) == []
    # Asked again without a pause: the server is waiting for the next one.
    assert devices(bench.grid.pull_messages(ids)) == [1]
    assert bench.grid.now_s > 500.0 + TRAIN_S
    assert bench.grid.pull_messages(ids) == []


def test_threads_wait_for_their_phones_at_the_same_time() -> None:
    bench = Bench()
    with ThreadPoolExecutor(max_workers=2) as pool:
        replies = list(pool.map(lambda device: bench.grid.send_and_receive([message(device)]), range(DEVICES)))
    assert [times(reply) for (reply,) in replies] == [1, 1, 1, 1]
    assert bench.grid.now_s == 0.0
    bench.grid.get_node_ids()
    assert TRAIN_S < bench.grid.now_s < TRAIN_S + 10.0
    assert len(bench.grid.exchanges) == 1


def test_waiting_for_nodes_goes_to_when_the_next_one_connects() -> None:
    bench = Bench((1, "charging", 0.0, 5000.0), (2, "charging", 0.0, 7000.0))
    bench.grid.wait_for_nodes()
    assert bench.grid.now_s == 5000.0
    bench.grid.wait_for_nodes()
    assert bench.grid.now_s == 7000.0
    with pytest.raises(InputError, match=r"waits for more nodes than the fleet has \(4\): raise fleet\.devices"):
        bench.grid.wait_for_nodes()


def test_a_phone_in_its_back_off_is_waited_for() -> None:
    # Unplugged for good, but phone 0, which is picked up at 50 s and backs off for 30 s from there.
    gone = [(device, "charging", 0.0, 1e9) for device in (1, 2, 3)]
    bench = Bench(*gone, (0, "idle", 50.0, 51.0), horizon_s=2e4)
    bench.grid.push_messages([message(0)])
    bench.grid.sleep(60.0)
    assert bench.grid.get_node_ids() == []
    bench.grid.wait_for_nodes()
    assert bench.grid.now_s == pytest.approx(80.0)


def test_at_the_horizon_the_app_is_stopped() -> None:
    bench = Bench(*[(device, "charging", 0.0, 1e9) for device in range(DEVICES)], horizon_s=3000.0)
    with pytest.raises(HorizonReached):
        bench.grid.wait_for_nodes()
    assert bench.grid.now_s == 3000.0
    assert bench.grid.close() == 0


def test_what_has_not_begun_at_the_end_is_taken_back() -> None:
    bench = Bench((1, "charging", 0.0, 500.0))
    bench.grid.push_messages([message(1), message(1)])
    bench.grid.sleep(10.0)
    assert bench.grid.close() == 0
    assert bench.population.ledger.column["assigned"].tolist() == [0, 0, 0, 0]
    assert len(bench.events("assign")) == 0


def test_a_message_to_nobody_is_an_error_at_once() -> None:
    bench = Bench()
    lost, reply = bench.grid.send_and_receive([message(0), Message(RecordDict(), 7, "train")])
    assert (lost.error.code, reply.has_error()) == (NODE_LOST, False)
    with pytest.raises(TypeError, match=r"a grid takes flwr\.app\.Message, got str"):
        bench.grid.push_messages(["hello"])


def test_a_run_that_is_over_has_no_nodes() -> None:
    from flwr.supercore.run import RunNotRunningException

    bench = Bench()
    bench.grid.close()
    with pytest.raises(RunNotRunningException):
        bench.grid.get_node_ids()


def test_another_threads_sleep_is_its_own() -> None:
    bench = Bench()
    found = []
    thread = threading.Thread(target=lambda: found.append(bench.grid.sleep(1.0)))
    thread.start()
    thread.join()
    assert (found, bench.grid.now_s) == ([False], 0.0)
