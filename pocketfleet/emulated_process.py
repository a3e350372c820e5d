"""The process of one emulated device of a fleet: its own memory, its own death.

It is forked from a server of processes that has only loaded libraries (``emulation``), makes its device of the
experiment, and runs it. Through its pipe it hears of news; when that closes, it ends.
"""

import signal
import sys
import threading
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TextIO

from pocketfleet.assembly import Parts, given_path
from pocketfleet.device_sim.device_folder import DeviceFolder
from pocketfleet.device_sim.device_start import StartSettings, started_parts
from pocketfleet.device_sim.eligibility import Rule
from pocketfleet.device_sim.emulated_device import EmulatedDevice
from pocketfleet.device_sim.emulated_phone import PhoneUnit
from pocketfleet.device_sim.phone_clock import PhoneClock, Stopped
from pocketfleet.errors import PocketfleetError
from pocketfleet.experiment import Experiment

__all__ = ["LOG_FILE", "NEWS", "DeviceOrder", "run_device"]

LOG_FILE = "device.log"
# What comes through the pipe.
NEWS = b"news"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceOrder:
    """Which device to run.

    Attributes:
        experiment: as TOML, times as the phones live them.
        device: dense index.
        folder: with its credential.
        speed: of the phones' clocks.
        crash_ratio, break_ratio: see ``fault_plan.FaultPlan``.
    """

    experiment: str
    device: int
    folder: Path
    speed: float
    crash_ratio: float
    break_ratio: float


def run_device(order: DeviceOrder, pipe: Connection) -> None:
    """The process, whole; its exit code says how it ended: 0 done or stopped, 2 it cannot take part, 1 our failure."""
    # Ctrl-C reaches all of a terminal's processes: the one that started this one decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with (order.folder / LOG_FILE).open("a", encoding="utf-8") as log:
        try:
            _run(order, pipe, log)
        except Stopped:
            return
        except PocketfleetError as exc:
            _write(log, str(exc))
            sys.exit(2)
        except Exception as exc:  # noqa: BLE001 - the outermost handler of this process: what gets here is our failure
            traceback.print_exc(file=log)
            _write(log, f"internal error ({type(exc).__name__}): {exc}")
            sys.exit(1)


def _run(order: DeviceOrder, pipe: Connection, log: TextIO) -> None:
    experiment = Experiment.from_toml(order.experiment, name="the experiment")
    folder = DeviceFolder(order.folder)
    credential = folder.credential()
    assert credential is not None
    made = Parts.of(experiment, given_path(experiment))
    fleet = experiment.fleet
    unit = PhoneUnit(
        fleet=made.fleet,
        device=order.device,
        availability=made.availability,
        seed=experiment.seed,
        profile=made.profile,
        num_training=int(made.data.num_training[order.device]),
        num_held_out=int(made.data.num_held_out[order.device]),
        arrival=made.arrival,
        room_celsius=fleet.room_celsius if fleet.heat else None,
        memory_moments=fleet.memory_moments,
    )
    settings = StartSettings(
        runtime=fleet.program,
        speed=order.speed,
        rule=Rule(**experiment.eligibility.model_dump()),
        crash_ratio=order.crash_ratio,
        break_ratio=order.break_ratio,
        own_code=True,
    )
    parts = started_parts(
        folder, unit, credential, settings, data=lambda _: made.data, tell=lambda line: _write(log, line)
    )
    threading.Thread(target=_listen, args=(pipe, parts.clock), daemon=True).start()
    with parts.service:
        EmulatedDevice(parts).run()


def _listen(pipe: Connection, clock: PhoneClock) -> None:
    while True:
        try:
            pipe.recv_bytes()
        except (EOFError, OSError):
            clock.stop()
            return
        clock.ring()


def _write(log: TextIO, line: str) -> None:
    log.write(f"{line}\n")
    log.flush()
