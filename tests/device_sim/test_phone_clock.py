import threading
import time

import pytest

from pocketfleet.device_sim.phone_clock import PhoneClock, Stopped
from pocketfleet.training.server.wall_clock import wall_s


def test_the_phone_lives_so_many_times_as_fast() -> None:
    clock, began_s = PhoneClock(speed=100.0, first_s=50.0), time.monotonic()
    clock.wait_until(60.0)
    # Ten seconds of the phone are 0.1 of the wall.
    assert 0.1 <= time.monotonic() - began_s < 10.0
    assert 60.0 <= clock.now_s() < 1000.0


def test_what_passed_since_the_last_start_counts_and_time_never_goes_back() -> None:
    assert PhoneClock(speed=2.0, first_s=5.0, first_wall_s=wall_s() - 10.0).now_s() == pytest.approx(25.0, abs=5.0)
    # The wall clock was set back by an hour: what is known to have passed has.
    assert PhoneClock(first_s=5.0, first_wall_s=wall_s() + 3600.0, least_s=8.0).now_s() == pytest.approx(8.0, abs=5.0)


def test_news_end_a_wait_for_news_alone() -> None:
    clock = PhoneClock()
    news = clock.news
    clock.ring()
    clock.wait(3600.0, news=news)
    began_s = time.monotonic()
    threading.Timer(0.05, clock.ring).start()
    clock.wait(0.15)
    assert time.monotonic() - began_s >= 0.15


def test_a_stop_ends_every_wait() -> None:
    clock = PhoneClock(speed=1e-3)
    threading.Timer(0.05, clock.stop).start()
    with pytest.raises(Stopped):
        clock.wait_wall(3600.0)
    with pytest.raises(Stopped):
        clock.wait(0.0)


@pytest.mark.parametrize("speed", [0.0, -1.0, float("inf"), float("nan")])
def test_a_speed_is_above_0_and_finite(speed: float) -> None:
    with pytest.raises(ValueError, match="speed must be above 0"):
        PhoneClock(speed=speed)
