import multiprocessing
import os
import signal
import subprocess
import sys
import time

from pocketfleet.device_sim.child_process import interrupts_ignored

PARENT = """
import multiprocessing, os, sys, time
from pocketfleet.device_sim.child_process import end_with_parent

def child(pipe):
    end_with_parent()
    pipe.send(os.getpid())
    time.sleep(600)

if __name__ == "__main__":
    receiving, sending = multiprocessing.Pipe(duplex=False)
    multiprocessing.get_context("fork").Process(target=child, args=(sending,)).start()
    print(receiving.recv(), flush=True)
    time.sleep(600)
"""


def is_running(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_child_does_not_outlive_a_killed_parent() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert is_running(child)
        parent.kill()
    end_s = time.monotonic() + 30.0
    while is_running(child) and time.monotonic() < end_s:
        time.sleep(0.05)  # noqa: TID251 - waits for another process
    assert not is_running(child)


def test_interrupts_are_ignored_inside_and_as_before_outside() -> None:
    before = signal.getsignal(signal.SIGINT)
    with interrupts_ignored():
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
        assert multiprocessing.parent_process() is None
    assert signal.getsignal(signal.SIGINT) == before
