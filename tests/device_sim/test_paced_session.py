import time

import pytest
import torch
from tiny import ALGORITHM, TinyTask, tiny_data, tiny_weights

from pocketfleet.device_sim.client import Assignment, Client
from pocketfleet.device_sim.paced_session import OutOfTime, PacedSession
from pocketfleet.device_sim.phone_clock import PhoneClock
from pocketfleet.export.session import EagerSession
from pocketfleet.training.train_step import StepSettings

WORK = Assignment(device=3, steps=6, batch_seed=7, device_state={})


def paced(clock: PhoneClock) -> tuple[PacedSession, Client, Client]:
    task = TinyTask()
    plain = EagerSession(task, task.make_model(), StepSettings())
    session = PacedSession(plain, clock)
    parts = {
        "data": tiny_data(task),
        "algorithm": ALGORITHM,
        "settings": StepSettings(),
        "hyper": {"learning_rate": 0.25},
        "batch_size": 2,
    }
    return session, Client(session=session, **parts), Client(session=plain, **parts)


def test_steps_take_the_phones_time_and_give_the_same_bits() -> None:
    clock = PhoneClock(speed=10.0)
    session, client, plain = paced(clock)
    calls: list[int] = []
    # 0.5 s of the phone are 50 ms of the wall, more than any host needs for this step.
    session.start(call_s=0.5, after=calls.append)
    began_s = time.monotonic()
    result = client.train(WORK, tiny_weights(), {})
    # No less; how much more is the host's, which may be busy.
    assert 0.25 <= time.monotonic() - began_s < 10.0
    assert calls == [1, 2, 3, 4, 5, 6]
    assert session.calls == 6
    assert torch.equal(result.update.delta["w"], plain.train(WORK, tiny_weights(), {}).update.delta["w"])


def test_what_a_host_cannot_keep_up_with_is_counted() -> None:
    session, client, _ = paced(PhoneClock())
    session.start(call_s=1e-9)
    client.train(WORK, tiny_weights(), {})
    assert session.late == 6
    assert session.late_s > 0.0


def test_training_ends_when_its_time_is_over() -> None:
    clock = PhoneClock(speed=10.0)
    session, client, _ = paced(clock)
    session.start(call_s=1.0, until_s=clock.now_s() + 2.5)
    with pytest.raises(OutOfTime, match="3 steps are done"):
        client.train(WORK, tiny_weights(), {})


def test_evaluations_are_the_sessions_own() -> None:
    session, _, plain = paced(PhoneClock(speed=1e-3))
    x, y = torch.ones(2), torch.tensor([1.0, 3.0])
    assert session.evaluate(tiny_weights(2.0), x, y) == plain.session.evaluate(tiny_weights(2.0), x, y)
    assert torch.equal(session.predict(tiny_weights(2.0), x), torch.tensor([2.0, 2.0]))
