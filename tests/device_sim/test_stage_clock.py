import time
from collections.abc import Callable, Iterator

import pytest

from pocketfleet.device_sim.stage_clock import StageClock, unwatched


def spend(seconds: float) -> None:
    until_s = time.perf_counter() + seconds
    while time.perf_counter() < until_s:
        pass


class Disk:
    size = 3

    def write(self) -> str:
        spend(0.02)
        return "written"


class Trainer:
    def __init__(self, disk: Disk) -> None:
        self.disk = disk

    def train(self) -> Iterator[int]:
        for number in range(2):
            spend(0.03)
            self.disk.write()
            yield number

    def fail(self) -> None:
        raise ValueError("as it should")


def test_each_second_is_counted_once_and_where_it_was_spent() -> None:
    clock = StageClock()
    disk = clock.watched(Disk(), "disk")
    trainer = clock.watched(Trainer(disk), "training")
    with clock.running():
        started_s = time.perf_counter()
        for _ in trainer.train():
            spend(0.01)
        assert disk.write() == "written"
        total_s = time.perf_counter() - started_s
    # Spinning takes at least its time; what is more is the machine's.
    assert clock.seconds["training"] >= 0.06
    assert clock.seconds["disk"] >= 0.06
    assert clock.seconds["other"] >= 0.02
    assert sum(clock.seconds.values()) == pytest.approx(total_s, rel=0.05)
    assert clock.seconds["physics"] == 0.0


def test_a_watched_object_is_otherwise_the_object() -> None:
    clock = StageClock()
    disk = Disk()
    watched = clock.watched(disk, "disk")
    assert watched.size == 3
    watched.size = 4
    assert disk.size == 4
    trainer = clock.watched(Trainer(disk), "training")
    with clock.running(), pytest.raises(ValueError, match="as it should"):
        trainer.fail()
    assert unwatched(disk, "disk") is disk


def test_a_failure_leaves_the_clock_with_who_called() -> None:
    clock = StageClock()
    trainer = clock.watched(Trainer(Disk()), "training")

    def guarded(call: Callable[[], None]) -> None:
        with pytest.raises(ValueError, match="as it should"):
            call()

    with clock.running("physics"):
        guarded(trainer.fail)
        spend(0.02)
    assert clock.seconds["physics"] >= 0.02
    assert clock.seconds["training"] < 0.01
