import threading
import time
from collections import deque
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from device_kit import Kit, trained_alone
from scripted import ScriptedDay
from small_service import RULE, Fault, SmallService, work_of

from pocketfleet import Bundle
from pocketfleet.device_sim.device_folder import WorkUnderWay
from pocketfleet.device_sim.fault_plan import FaultPlan, Moment
from pocketfleet.device_sim.memory import HEADROOM_RATIO, RUNTIME_BYTES
from pocketfleet.device_sim.phone_clock import Stopped
from pocketfleet.errors import InputError
from pocketfleet.training.algorithms.scaffold import Scaffold
from pocketfleet.training.codec import LosslessCodec
from pocketfleet.training.server.wall_clock import wall_s
from pocketfleet.training.server_optimizer import ServerSgd
from pocketfleet.training.update import tensors_to_bytes


class Died(BaseException):
    """In place of the end of the process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DiesAt(FaultPlan):
    """Dies the first time that it comes to a moment."""

    moment: Moment = "assigned"

    def crashes(self, moment: Moment, number: int) -> bool:  # noqa: ARG002 - its interface
        return moment == self.moment

    def die(self) -> None:
        raise Died


def test_a_round_is_the_simulators_to_the_bit(tmp_path: Path, boston_bundle: Bundle) -> None:
    with SmallService() as service:
        work = work_of(service, boston_bundle)
        service.assignments.append(work)
        kit = Kit(tmp_path, service)
        assert kit.run().reports == 1
        (sent,) = service.requests("reports/0")
    steps = -(-kit.unit.num_training // 8)
    expected = trained_alone(boston_bundle, work, kit.data, steps=steps)
    assert sent.body == LosslessCodec().encode(expected.update)
    assert sent.query == {
        "num_examples": str(kit.unit.num_training),
        "steps": str(steps),
        "examples_held": str(kit.unit.num_training + kit.unit.num_held_out),
        "train_loss": repr(expected.train_loss),
        "metric_global": repr(expected.metrics_before["mse"]),
        "metric_personalised": repr(expected.metrics_after["mse"]),
    }
    assert (tmp_path / "model.safetensors").read_bytes() == tensors_to_bytes(expected.personalised)
    (line,) = kit.folder.rounds()
    assert (line["outcome"], line["steps"], line["round"]) == ("accepted", steps, 0)
    assert line["up_bytes"] == work.update_bytes
    # The first time the programs come with the weights, which are the bundle's: one file fewer.
    assert line["down_bytes"] >= sum({entry.sha256: entry.bytes for entry in work.bundle.values()}.values())
    assert f"mse {expected.metrics_before['mse']:.4g} -> {expected.metrics_after['mse']:.4g}" in kit.told[0]
    assert kit.folder.report() is None
    check_in = service.requests("check-in")[0].body
    assert b'"battery_ratio":1.0' in check_in


def test_seconds_are_the_phones(tmp_path: Path, boston_bundle: Bundle) -> None:
    speed = 2.0
    with SmallService() as service:
        start = boston_bundle.weights()
        moved = {name: value + 0.01 for name, value in start.trainable.items()}
        version = service.add(tensors_to_bytes(moved | start.buffers))
        service.assignments += [work_of(service, boston_bundle), work_of(service, boston_bundle, 1, weights=version)]
        # Steps and a link far slower than any host: each stage takes seconds.
        kit = Kit(tmp_path, service, speed=speed, step_s=0.5, down_bits_per_s=5e4, up_bits_per_s=4e4, latency_s=0.1)
        kit.run()
    first, second = kit.folder.rounds()
    for line in (first, second):
        for name in ("download_s", "train_s", "upload_s"):
            expected_s = line["expected"][name]
            # What a busy host is late with is seconds of the wall, which benchmarks/emulated_pace.py looks at.
            assert 0.97 * expected_s <= line[name] <= 1.1 * expected_s + 10.0 * speed, name
    # The programs come once.
    assert first["down_bytes"] > 5 * second["down_bytes"]


@pytest.mark.parametrize("moment", ["assigned", "downloaded", "training", "trained", "reported"])
def test_after_a_crash_the_work_is_reported_once(tmp_path: Path, boston_bundle: Bundle, moment: Moment) -> None:
    with SmallService() as service:
        work = work_of(service, boston_bundle)
        service.assignments.append(work)
        kit = Kit(tmp_path, service)
        parts = kit.parts()
        with pytest.raises(Died):
            kit.run(replace(parts, faults=DiesAt(moment=moment)))
        assert kit.run().reports == 1
        sent = service.requests("reports/0")
    steps = -(-kit.unit.num_training // 8)
    expected = LosslessCodec().encode(trained_alone(boston_bundle, work, kit.data, steps=steps).update)
    assert {came.body for came in sent} == {expected}
    assert len({tuple(came.query.items()) for came in sent}) == 1
    assert len(sent) == (2 if moment == "reported" else 1)
    # No other work was asked for: the one check-in after it says that there is none.
    assert len(service.requests("check-in")) == 2
    assert [line["outcome"] for line in kit.folder.rounds()] == ["accepted"]
    assert kit.folder.phone().lives == 2


def test_work_whose_time_is_over_is_given_up(tmp_path: Path, boston_bundle: Bundle) -> None:
    with SmallService() as service:
        kit = Kit(tmp_path, service)
        late = WorkUnderWay(assignment=work_of(service, boston_bundle), deadline_wall_s=wall_s() - 1.0)
        kit.folder.begin(late)
        assert kit.run().reports == 0
        # In time, but the service waits for it no more.
        kit.folder.begin(late.model_copy(update={"deadline_wall_s": wall_s() + 60.0}))
        assert kit.run().reports == 0
        assert service.requests("reports/") == []
        assert kit.folder.work() is None


def test_what_does_not_count_changes_nothing(tmp_path: Path, boston_bundle: Bundle) -> None:
    with SmallService() as service:
        service.assignments += [work_of(service, boston_bundle, number) for number in (0, 1)]
        service.report_codes.append("late")
        kit = Kit(tmp_path, service)
        assert kit.run().reports == 1
    assert [line["outcome"] for line in kit.folder.rounds()] == ["late", "accepted"]
    assert "round 0: the report does not count, late" in kit.told


def test_an_algorithms_state_stays_on_the_device(tmp_path: Path, scaffold_bundle: Bundle) -> None:
    algorithm = Scaffold(server_optimizer=ServerSgd())
    weights = scaffold_bundle.weights()
    broadcast = {name: torch.full_like(value, 0.01) for name, value in weights.trainable.items()}
    with SmallService() as service:
        sent = service.add(tensors_to_bytes(broadcast))
        for number in (0, 1):
            work = work_of(service, scaffold_bundle, number, broadcast=sent, algorithm="scaffold")
            size = 0
            state: dict[str, torch.Tensor] = algorithm.device_init(weights)
            result = None
            kit = Kit(tmp_path, service)
            steps = -(-kit.unit.num_training // 8)
            for _ in range(number + 1):
                result = trained_alone(
                    scaffold_bundle, work, kit.data, steps=steps, algorithm=algorithm, broadcast=broadcast, state=state
                )
                state = result.device_state
            assert result is not None
            expected = LosslessCodec().encode(result.update)
            size = len(expected)
            service.assignments.append(work.model_copy(update={"update_bytes": size}))
            assert kit.run().reports == 1
            assert service.requests(f"reports/{number}")[0].body == expected
            assert {name: value.tolist() for name, value in kit.folder.state().items()} == {
                name: value.tolist() for name, value in state.items()
            }


def test_broken_connections_change_nothing(tmp_path: Path, boston_bundle: Bundle) -> None:
    with SmallService() as service:
        service.assignments.append(work_of(service, boston_bundle))
        service.faults = {
            "files": deque([Fault("cut", 500), Fault("unavailable", 0.0), Fault("damaged")]),
            "reports": deque([Fault("cut"), Fault("unavailable", 0.0)]),
            "check-in": deque([Fault("cut")]),
        }
        kit = Kit(tmp_path, service)
        parts = kit.parts()
        assert kit.run(replace(parts, faults=FaultPlan(break_ratio=0.999))).reports == 1
        assert len({came.body for came in service.requests("reports/")}) == 1


def test_a_device_that_is_turned_away_sleeps(tmp_path: Path) -> None:
    with SmallService() as service:
        service.when_empty, service.retry_after_s = "round_full", 0.4
        kit = Kit(tmp_path, service, speed=100.0)
        parts = kit.parts()
        threading.Timer(1.0, parts.clock.stop).start()
        before_s = time.process_time()
        with pytest.raises(Stopped):
            kit.run(parts)
        assert time.process_time() - before_s < 1.0
        # At once, and twice after 0.4 s of the wall at most, whatever the phone's speed.
        assert 1 <= len(service.requests("check-in")) <= 3
        assert kit.told == ["waits: nothing more"]
        # News end the sleep.
        service.came.clear()
        service.retry_after_s = 600.0
        parts = kit.parts()
        threading.Timer(1.0, parts.clock.ring).start()
        threading.Timer(3.0, parts.clock.stop).start()
        with pytest.raises(Stopped):
            kit.run(parts)
        assert len(service.requests("check-in")) == 2


def test_a_phone_that_may_not_train_does_not_come(tmp_path: Path, boston_bundle: Bundle) -> None:
    with SmallService() as service:
        service.assignments.append(work_of(service, boston_bundle))
        kit = Kit(tmp_path, service, day=ScriptedDay((1, "idle", 0.0, 20.0)))
        began_s = time.monotonic()
        assert kit.run().reports == 1
        # 20 s of the phone at 20 times the wall's pace.
        assert time.monotonic() - began_s > 1.0
        assert kit.told[0] == "waits: in_use"
        assert kit.folder.rounds()[0]["start_s"] >= 20.0


def test_an_interrupted_phone_reports_the_steps_that_it_did(tmp_path: Path, boston_bundle: Bundle) -> None:
    with SmallService() as service:
        work = work_of(service, boston_bundle)
        service.assignments.append(work)
        # Steps of 10 s, and unplugged 35 s after its start: three of them are done.
        kit = Kit(tmp_path, service, step_s=10.0, day=ScriptedDay((1, "charging", 35.0, 40.0)))
        assert kit.run().reports == 1
        (sent,) = service.requests("reports/0")
    assert sent.query["steps"] == "3"
    assert sent.body == LosslessCodec().encode(trained_alone(boston_bundle, work, kit.data, steps=3).update)


def test_memory_that_the_phone_has_not_ends_the_attempt(tmp_path: Path, boston_bundle: Bundle) -> None:
    held: list[Any] = []
    with SmallService() as service:
        service.assignments += [work_of(service, boston_bundle, number) for number in (0, 1)]
        # Its examples alone take more than the 200 MB that the phone has free.
        kit = Kit(tmp_path, service, speed=200.0, load=lambda: held.append(np.ones(50_000_000)), free_memory_bytes=2e8)
        assert kit.run(reports=1).reports == 0
        assert [line["outcome"] for line in kit.folder.rounds()] == ["out_of_memory", "out_of_memory"]
        assert kit.told[:2] == ["round 0: dropped out, out_of_memory", "round 1: dropped out, out_of_memory"]
        assert service.requests("reports/") == []


def test_a_program_that_does_not_fit_is_not_started(tmp_path: Path, boston_bundle: Bundle) -> None:
    with SmallService() as service:
        service.assignments.append(work_of(service, boston_bundle))
        # Enough for the app, with the headroom of a tenth, and for a KB of the program.
        free = (RUNTIME_BYTES + 1_000) / (1.0 - HEADROOM_RATIO)
        kit = Kit(tmp_path, service, speed=1000.0, free_memory_bytes=free)
        parts = kit.parts()
        threading.Timer(2.0, parts.clock.stop).start()
        with pytest.raises(Stopped):
            kit.run(parts)
        assert kit.told[:2] == ["round 0: dropped out, low_memory", "waits: low_memory"]


def test_a_device_that_can_never_take_part_says_so(tmp_path: Path, boston_bundle: Bundle) -> None:
    with SmallService() as service:
        rule = RULE.model_copy(update={"min_examples": 1000})
        service.assignments.append(work_of(service, boston_bundle, rule=rule))
        with pytest.raises(InputError, match=r"holds 51 examples, the service's rule asks for 1000 or more"):
            Kit(tmp_path, service, speed=1000.0).run()
        # The rule is known to the next start.
        service.came.clear()
        with pytest.raises(InputError, match=r"the service's rule asks for 1000"):
            Kit(tmp_path, service, speed=1000.0).run()
        assert service.came == []


def test_a_credential_that_is_void_is_told(tmp_path: Path) -> None:
    with SmallService() as service:
        kit = Kit(tmp_path, service)
        kit.credential = kit.credential.model_copy(update={"credential": "void"})
        with pytest.raises(InputError, match=r"does not take this device: .*Ask who runs it for a new token"):
            kit.run()


def test_training_that_gives_no_numbers_is_a_drop_out(tmp_path: Path, boston_bundle: Bundle) -> None:
    with SmallService() as service:
        wrong = {"hyper": {"learning_rate": 1e30}, "epochs": 3}
        service.assignments.append(work_of(service, boston_bundle, **wrong))
        kit = Kit(tmp_path, service)
        assert kit.run().reports == 0
        assert [line["outcome"] for line in kit.folder.rounds()] == ["not_finite"]


def test_a_deadline_ends_training(tmp_path: Path, boston_bundle: Bundle) -> None:
    with SmallService() as service:
        service.assignments.append(work_of(service, boston_bundle, deadline_in_s=1.0))
        kit = Kit(tmp_path, service, step_s=10.0)
        began_s = time.monotonic()
        assert kit.run().reports == 0
        assert time.monotonic() - began_s < 9.0
        assert [line["outcome"] for line in kit.folder.rounds()] == ["deadline"]
