"""A whole population on this machine: the service in a process, and a process a device, all of them real.

Rules:

1. The service is ``pocketfleet serve`` of the same experiment. It lives by the wall's clock and the phones by their
   own, ``speed`` times as fast: the service's times are the experiment's divided by it. A deadline stays at half a
   minute at least: what the host needs to open programs and to answer is not faster for it.
2. Devices are enrolled one after another, so that the service numbers them as the experiment does, and each trains on
   the examples of its number. They are forked from a server of processes that has loaded libraries and started no
   thread; those of a spawned process would take seconds of a core each.
3. When a round closes, devices that wait for it are told, as a push message would; so nobody sleeps until a deadline
   that never comes.
4. All processes end with this one, however it ends: they hold the other ends of its pipes. A device that dies of a
   drawn crash is started again; one that ends otherwise before the training does, or a service that does, ends the
   emulation.
5. So do rounds one after the other of which every update was not finite: the weights stay as they are, and so would
   what comes of them.
"""

import json
import multiprocessing
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from pocketfleet.assembly import make_fleet
from pocketfleet.device_sim.device_folder import DeviceFolder
from pocketfleet.device_sim.device_parts import NOT_FINITE
from pocketfleet.device_sim.divergence import diverged
from pocketfleet.device_sim.enrolment import enrolled
from pocketfleet.device_sim.fault_plan import CRASHED
from pocketfleet.device_sim.fleet import Fleet
from pocketfleet.device_sim.phone import find_phone, load_catalogue
from pocketfleet.device_sim.phone_clock import PhoneClock
from pocketfleet.device_sim.service_client import ServiceClient
from pocketfleet.emulated_process import LOG_FILE, NEWS, DeviceOrder, run_device
from pocketfleet.errors import InputError, PocketfleetError
from pocketfleet.experiment import Experiment
from pocketfleet.folder_lock import try_lock
from pocketfleet.serving_file import read_serving
from pocketfleet.training.server.administration import issue_tokens, model_rows, round_rows
from pocketfleet.whole_file import write_whole

__all__ = ["EmulationPlan", "emulate"]

_STATE, _DEVICES, _SUMMARY, _SERVICE_LOG = "state", "devices", "summary.json", "service.log"
# Exporting a large model takes minutes; a service that is not there by then will not come.
_SERVICE_START_S = 900.0
# Of the wall. A device opens its session in seconds of a core, of which many share a few.
_LEAST_DEADLINE_S = 30.0
# How often the processes and the rounds are looked at, seconds of the wall.
_LOOK_S = 0.2
# How long processes have to end by themselves.
_DEVICE_END_S, _SERVICE_END_S = 5.0, 20.0
# Rounds in a row without a finite update after which there is no hope: one may have had phones of odd data alone.
_HOPELESS_ROUNDS = 3
# The experiment's times that the service keeps.
_TIMES = ("horizon_s", "deadline_s", "interval_s", "pace_s", "selection_window_s")
# What the device processes are forked from has loaded this, and with it torch.
_PRELOADED = "pocketfleet.emulated_process"
_SERVICE_MODULE = "pocketfleet.emulated_service"
_STAGE_SECONDS = ("download_s", "train_s", "upload_s")

Told = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class EmulationPlan:
    """How an experiment is emulated.

    Attributes:
        out: the folder of everything: ``state`` of the service, ``devices``, ``summary.json``.
        speed: of the phones' clocks.
        crash_ratio, break_ratio: see ``device_sim.fault_plan``.
        force: replace an earlier emulation in ``out``.
    """

    out: Path
    speed: float = 1.0
    crash_ratio: float = 0.0
    break_ratio: float = 0.0
    force: bool = False


@dataclass(slots=True, kw_only=True)
class _Running:
    """A device's process, and the end of its pipe that is ours."""

    order: DeviceOrder
    process: BaseProcess
    pipe: Connection
    crashes: int = 0


def emulate(experiment: Experiment, plan: EmulationPlan, *, tell: Told) -> dict[str, Any]:
    """Serve and train until the experiment's versions are made.

    Args:
        experiment: what to run; ``fleet.devices`` processes are started.
        plan: how.
        tell: hears a line about each round.

    Returns:
        The summary: versions, the last one's ``model_sha256``, and a row a device.

    Raises:
        InputError: the experiment cannot be emulated, or ``plan.out`` is taken.
        PocketfleetError: a process died.
    """
    _check(plan)
    with _own_folder(plan) as out, _served(experiment, plan, tell) as service:
        url = _url(service, out / _STATE)
        orders = _orders(experiment, plan, url)
        tell(f"the service is at {url}; {len(orders)} devices start")
        watcher = ServiceClient(url, clock=PhoneClock(), credential=_credential(orders[0]))
        with _devices(orders) as devices, watcher as client:
            _watch(experiment, devices, service, client, tell)
        summary = _summary(experiment, plan, devices)
    write_whole(plan.out / _SUMMARY, json.dumps(summary, indent=2) + "\n")
    return summary


def _check(plan: EmulationPlan) -> None:
    if not 0.0 < plan.speed < float("inf"):
        raise InputError(f"--speed must be above 0, got {plan.speed}")
    for name, ratio in (("--crashes", plan.crash_ratio), ("--breaks", plan.break_ratio)):
        if not 0.0 <= ratio < 1.0:
            raise InputError(f"{name} must be 0 or more and under 1, got {ratio}")


@contextmanager
def _own_folder(plan: EmulationPlan) -> Iterator[Path]:
    """The folder, empty and locked."""
    out = plan.out
    if out.exists() and any(out.iterdir()) and not plan.force:
        raise InputError(f"{out} is not empty: choose another --out, or replace it with --force")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise InputError(f"--out {out} cannot be a folder: {exc.strerror}") from exc
    lock = try_lock(out)
    if lock is None:
        raise InputError(f"{out} is in use by another emulation: choose another --out")
    with lock:
        for name in (_STATE, _DEVICES):
            shutil.rmtree(out / name, ignore_errors=True)
        (out / _SUMMARY).unlink(missing_ok=True)
        yield out


# The service


@contextmanager
def _served(experiment: Experiment, plan: EmulationPlan, tell: Told) -> Iterator["subprocess.Popen[bytes]"]:
    """``pocketfleet serve`` in a process, which is asked to end, and then made to."""
    served = plan.out / "served.toml"
    write_whole(served, _by_the_wall(experiment, plan.speed).to_toml())
    command = [sys.executable, "-m", _SERVICE_MODULE, "serve", str(served)]
    command += ["--state", str(plan.out / _STATE), "--port", str(_free_port())]
    tell("exporting the model and starting the service")
    with (plan.out / _SERVICE_LOG).open("wb") as log:
        # A group of its own: Ctrl-C reaches this process alone, which decides.
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    # Leaving the process' own block closes its input and waits for its end.
    with process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(_SERVICE_END_S)
            except subprocess.TimeoutExpired:
                process.kill()


def _by_the_wall(experiment: Experiment, speed: float) -> Experiment:
    """The experiment with the times that a service keeps: seconds of the wall."""
    times = {name: getattr(experiment.rounds, name) / speed for name in _TIMES}
    deadline_s = experiment.rounds.deadline_s
    times["deadline_s"] = max(times["deadline_s"], min(deadline_s, _LEAST_DEADLINE_S))
    changed: dict[str, object] = {"rounds": experiment.rounds.model_copy(update=times)}
    secure = experiment.secure_aggregation
    if secure.enabled:
        stage_s = max(secure.stage_deadline_s / speed, min(secure.stage_deadline_s, _LEAST_DEADLINE_S))
        changed["secure_aggregation"] = secure.model_copy(update={"stage_deadline_s": stage_s})
    return experiment.model_copy(update=changed)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
    return port


def _url(service: "subprocess.Popen[bytes]", state: Path) -> str:
    """Where the service is, once it answers.

    Raises:
        PocketfleetError: it ended, or takes too long.
    """
    clock = PhoneClock()
    while clock.now_s() < _SERVICE_START_S:
        serving = read_serving(state)
        if serving is not None:
            return serving.url
        _check_service(service, state.parent)
        clock.wait_wall(_LOOK_S)
    raise PocketfleetError(
        f"the service did not start within {_SERVICE_START_S:.0f} s; see {state.parent / _SERVICE_LOG}"
    )


def _check_service(service: "subprocess.Popen[bytes]", out: Path) -> None:
    if service.poll() is not None:
        log = out / _SERVICE_LOG
        raise PocketfleetError(f"the service ended (exit code {service.returncode}): {_last_line(log)} ({log})")


# The devices


def _orders(experiment: Experiment, plan: EmulationPlan, url: str) -> list[DeviceOrder]:
    """Enrol the devices in order; each one's folder holds its credential."""
    fleet = make_fleet(experiment.fleet, seed=experiment.seed)
    catalogue = load_catalogue(Path(experiment.fleet.catalogue) if experiment.fleet.catalogue else None)
    text, orders = experiment.to_toml(), []
    for device, token in enumerate(issue_tokens(plan.out / _STATE, count=len(fleet))):
        path = plan.out / _DEVICES / f"{device:0{len(str(len(fleet) - 1))}d}"
        enrolled(DeviceFolder(path), url, token, find_phone(fleet.phone_name[device], catalogue))
        orders.append(
            DeviceOrder(
                experiment=text,
                device=device,
                folder=path,
                speed=plan.speed,
                crash_ratio=plan.crash_ratio,
                break_ratio=plan.break_ratio,
            )
        )
    return orders


def _credential(order: DeviceOrder) -> str:
    credential = DeviceFolder(order.folder).credential()
    assert credential is not None
    return credential.credential


@contextmanager
def _devices(orders: list[DeviceOrder]) -> Iterator[list[_Running]]:
    """The devices' processes, which end with the block."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([_PRELOADED])
    running: list[_Running] = []
    try:
        running += (_started(order) for order in orders)
        yield running
    finally:
        for one in running:
            one.pipe.close()
        for one in running:
            one.process.join(_DEVICE_END_S)
        for one in running:
            if one.process.is_alive():
                one.process.terminate()
                one.process.join(_DEVICE_END_S)
            if one.process.is_alive():
                one.process.kill()
                one.process.join()


def _started(order: DeviceOrder) -> _Running:
    context = multiprocessing.get_context("forkserver")
    theirs, ours = context.Pipe(duplex=False)
    process = context.Process(target=run_device, args=(order, theirs), name=f"device-{order.device}", daemon=True)
    process.start()
    # Held open here, it would hide that the process is gone.
    theirs.close()
    return _Running(order=order, process=process, pipe=ours)


def _watch(
    experiment: Experiment,
    devices: list[_Running],
    service: "subprocess.Popen[bytes]",
    client: ServiceClient,
    tell: Told,
) -> None:
    """Until all devices have ended: see rules 3 to 5."""
    clock, seen = PhoneClock(), (-1, -1)
    while any(one.process.exitcode is None or one.process.exitcode == CRASHED for one in devices):
        _check_service(service, devices[0].order.folder.parent.parent)
        for place, one in enumerate(devices):
            devices[place] = _looked_after(one, tell)
        now = _reached(client) or seen
        if now != seen:
            seen = now
            tell(f"round {now[0]}, version {now[1]}")
            _check_finite(devices, now[0], experiment)
            _ring(devices)
        clock.wait_wall(_LOOK_S)


def _reached(client: ServiceClient) -> tuple[int, int] | None:
    """The open round and the newest version, if the service tells just now."""
    with suppress(PocketfleetError):
        status = client.status(tries=1)
        return status.round, status.model_version
    return None


def _check_finite(devices: list[_Running], open_round: int, experiment: Experiment) -> None:
    """Rule 5.

    Raises:
        TrainingDivergedError: nothing comes of it any more.
    """
    last = range(open_round - _HOPELESS_ROUNDS, open_round)
    lines = [line for one in devices for line in DeviceFolder(one.order.folder).rounds() if line["round"] in last]
    if {line["round"] for line in lines} == {*last} and {line["outcome"] for line in lines} == {NOT_FINITE}:
        rounds = f"rounds {last[0]} to {last[-1]}"
        private = experiment.privacy.noisy
        raise diverged(rounds, "all updates of all devices", private=private, resumable=False)


def _ring(devices: list[_Running]) -> None:
    for one in devices:
        # One that has just ended needs no news.
        with suppress(OSError):
            one.pipe.send_bytes(NEWS)


def _looked_after(one: _Running, tell: Told) -> _Running:
    code = one.process.exitcode
    if code is None or code == 0:
        return one
    if code != CRASHED:
        log = one.order.folder / LOG_FILE
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        raise PocketfleetError(f"the process of device {one.order.device} {how}: {_last_line(log)} ({log})")
    one.pipe.close()
    tell(f"device {one.order.device} crashed, as drawn, and starts again")
    again = _started(one.order)
    again.crashes = one.crashes + 1
    return again


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n") if log.is_file() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")


# Afterwards


def _summary(experiment: Experiment, plan: EmulationPlan, devices: list[_Running]) -> dict[str, Any]:
    models, rounds = model_rows(plan.out / _STATE), round_rows(plan.out / _STATE)
    fleet = make_fleet(experiment.fleet, seed=experiment.seed)
    rows = [_device_row(fleet, one) for one in devices]
    return {
        "task": experiment.task.name,
        "runtime": experiment.fleet.program,
        "speed": plan.speed,
        "rounds": len(rounds),
        "versions": models[-1]["version"],
        "model_sha256": models[-1]["model_sha256"],
        "reports_accepted": sum(row["accepted"] for row in rows),
        "crashes": sum(row["crashes"] for row in rows),
        "devices": rows,
    }


def _device_row(fleet: Fleet, one: _Running) -> dict[str, Any]:
    lines = DeviceFolder(one.order.folder).rounds()
    accepted = [line for line in lines if line["outcome"] == "accepted"]

    def total(name: str) -> float:
        return float(sum(line.get(name, 0) for line in lines))

    return {
        "device": one.order.device,
        "name": fleet.name[one.order.device],
        "phone": fleet.phone_name[one.order.device],
        "accepted": len(accepted),
        "other_outcomes": _counted(line["outcome"] for line in lines if line["outcome"] != "accepted"),
        "crashes": one.crashes,
        "steps": int(total("steps")),
        "late_steps": int(total("late_steps")),
        "download_s": total("download_s"),
        "train_s": total("train_s"),
        "upload_s": total("upload_s"),
        "expected_s": sum(
            line["expected"][stage] for line in accepted if "expected" in line for stage in _STAGE_SECONDS
        ),
        "down_bytes": int(total("down_bytes")),
        "up_bytes": int(total("up_bytes")),
        "peak_rss_bytes": max((line.get("peak_rss_bytes", 0) for line in lines), default=0),
    }


def _counted(words: Iterator[str]) -> Mapping[str, int]:
    counts: dict[str, int] = {}
    for word in words:
        counts[word] = counts.get(word, 0) + 1
    return counts
