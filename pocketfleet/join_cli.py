"""The command ``join``: one emulated phone in this process; ``cli`` puts it on its program.

Everything heavy is imported inside the command, so that ``--help`` is quick.
"""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pocketfleet.errors import InputError

if TYPE_CHECKING:
    from pocketfleet.device_sim.device_folder import DeviceFolder
    from pocketfleet.device_sim.emulated_phone import PhoneUnit
    from pocketfleet.device_sim.own_examples import OwnTable
    from pocketfleet.export.session import Runtime

__all__ = ["join"]

_S_PER_MINUTE, _S_PER_HOUR = 60, 3600


def join(
    url: Annotated[str, typer.Argument(help="Of the population, as pocketfleet serve prints it.")],
    data: Annotated[Path, typer.Option(metavar="FILE", help="The device's examples: a CSV file of numbers.")],
    token: Annotated[str, typer.Option(help="For the first time: a token that the administrator issued.")] = "",
    target: Annotated[str, typer.Option(metavar="COLUMN", help="What is predicted.  [default: the last column]")] = "",
    phone: Annotated[str, typer.Option(help="Of the catalogue; see: list phones.")] = "Pixel 8",
    network: Annotated[str, typer.Option(help="That it is connected by; see: list networks.")] = "home-wifi",
    availability: Annotated[str, typer.Option(help="Its day: always, flash-2020, or a recorded trace.")] = "always",
    runtime: Annotated[str, typer.Option(help="What runs the programs: executorch or onnx.")] = "executorch",
    state: Annotated[Path, typer.Option(metavar="FOLDER", help="What the device keeps; it goes on from there.")] = Path(
        "device"
    ),
    speed: Annotated[float, typer.Option(help="So many of the phone's seconds pass in one.")] = 1.0,
    rounds: Annotated[int, typer.Option(min=0, help="End after so many reports; 0: with the training.")] = 0,
) -> None:
    """Take part in a service's training as one emulated phone, in this one process, with your own data."""
    from pocketfleet.device_sim.device_start import StartSettings, started_parts
    from pocketfleet.device_sim.emulated_device import EmulatedDevice
    from pocketfleet.device_sim.enrolment import enrolled
    from pocketfleet.device_sim.own_examples import OwnExamples, read_table
    from pocketfleet.device_sim.phone import find_phone
    from pocketfleet.folder_lock import try_lock

    program = _runtime(runtime)
    if not 0.0 < speed < float("inf"):
        raise InputError(f"--speed must be above 0, got {speed}")
    table, model = read_table(data, target=target), find_phone(phone)
    folder = _folder(state)
    lock = try_lock(folder.path)
    if lock is None:
        raise InputError(f"{state} is in use: another process runs this device; name another --state folder")
    with lock:
        known = folder.credential() is not None
        credential = enrolled(folder, url, token, model)
        if not known:
            typer.echo(f"enrolled: device {credential.device_id}, kept in {state}")
        unit = _unit(phone, network, availability, table, device_id=credential.device_id)
        parts = started_parts(
            folder,
            unit,
            credential,
            StartSettings(runtime=program, speed=speed, first_s=_since_midnight_s()),
            data=lambda signature: OwnExamples(table.examples(signature)),
            tell=typer.echo,
        )
        device = EmulatedDevice(parts)
        try:
            with parts.service:
                device.run(reports=rounds)
        except KeyboardInterrupt as interrupt:
            typer.echo(f"pocketfleet: interrupted; the same command goes on from {state}", err=True)
            # 128 and the number of the signal, as a shell reports it.
            raise typer.Exit(130) from interrupt
    typer.echo(f"{device.reports} reports were taken; the phone's own model is in {state / 'model.safetensors'}")


def _folder(state: Path) -> "DeviceFolder":
    from pocketfleet.device_sim.device_folder import DeviceFolder

    try:
        return DeviceFolder(state)
    except OSError as exc:
        raise InputError(f"--state {state} cannot be written: {exc}") from exc


def _runtime(name: str) -> "Runtime":
    if name == "executorch":
        return "executorch"
    if name == "onnx":
        return "onnx"
    raise InputError(f"--runtime must be executorch or onnx, got {name!r}")


def _since_midnight_s() -> float:
    """The time of the day here: at real speed the phone's day is the user's."""
    import time

    from pocketfleet.training.server.wall_clock import wall_s

    now = time.localtime(wall_s())
    return float(now.tm_hour * _S_PER_HOUR + now.tm_min * _S_PER_MINUTE + now.tm_sec)


def _unit(phone: str, network: str, availability: str, table: "OwnTable", *, device_id: str) -> "PhoneUnit":
    """A phone of its own: what is drawn of it is drawn by its identity."""
    from pocketfleet.device_sim.availability import make_availability
    from pocketfleet.device_sim.efficiency import load_profile
    from pocketfleet.device_sim.emulated_phone import PhoneUnit
    from pocketfleet.device_sim.fleet import DeviceOverride, build_fleet

    seed = int.from_bytes(hashlib.sha256(device_id.encode()).digest()[:7], "big")
    # Who joins by hand wants to see it work, not a phone that charges first.
    full = DeviceOverride(devices="all", battery_ratio=1.0)
    return PhoneUnit(
        fleet=build_fleet(devices=1, seed=seed, phones=[phone], network=network, overrides=[full]),
        device=0,
        availability=make_availability(availability, seed=seed),
        seed=seed,
        profile=load_profile(""),
        num_training=len(table) - table.num_held_out,
        num_held_out=table.num_held_out,
    )
