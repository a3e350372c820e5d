"""Puts an emulated device together, from its folder, its phone and its examples."""

from collections.abc import Callable
from dataclasses import dataclass

from pocketfleet.device_sim.device_data import HeldExamples
from pocketfleet.device_sim.device_folder import Credential, DeviceFolder
from pocketfleet.device_sim.device_life import begin_life
from pocketfleet.device_sim.device_parts import DeviceParts
from pocketfleet.device_sim.eligibility import Rule
from pocketfleet.device_sim.emulated_phone import PhoneUnit
from pocketfleet.device_sim.fault_plan import FaultPlan
from pocketfleet.device_sim.service_client import ServiceClient
from pocketfleet.device_sim.shaped_transport import Link, ShapedTransport
from pocketfleet.export.loaded_runtime import load_runtime
from pocketfleet.export.session import Runtime
from pocketfleet.export.signature import Signature

__all__ = ["StartSettings", "started_parts"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StartSettings:
    """How a device is run.

    Attributes:
        runtime: that executes the programs.
        speed: of the phone's clock.
        first_s: what it shows at the very first start.
        rule: by which it may train until the service tells another; the usual one if left out.
        crash_ratio, break_ratio: see ``FaultPlan``.
        own_code: see ``DeviceWork.of``.
    """

    runtime: Runtime
    speed: float = 1.0
    first_s: float = 0.0
    rule: Rule | None = None
    crash_ratio: float = 0.0
    break_ratio: float = 0.0
    own_code: bool = False


def started_parts(
    folder: DeviceFolder,
    unit: PhoneUnit,
    credential: Credential,
    settings: StartSettings,
    *,
    data: Callable[[Signature], HeldExamples],
    tell: Callable[[str], None],
) -> DeviceParts:
    """Load the runtime and start the phone.

    Args:
        folder: the device's.
        unit: its phone.
        credential: to the service.
        settings: how it is run.
        data: its examples, as a bundle's programs take them.
        tell: hears a line about whatever happens.
    """
    load_runtime(settings.runtime)
    life = begin_life(folder, unit, speed=settings.speed, first_s=settings.first_s, rule=settings.rule)
    link = Link(life.clock)
    service = ServiceClient(
        credential.url,
        clock=life.clock,
        transport=ShapedTransport(link),
        credential=credential.credential,
        device=unit.device,
        tell=tell,
    )
    faults = FaultPlan(
        seed=unit.seed,
        device=unit.device,
        life=life.number,
        crash_ratio=settings.crash_ratio,
        break_ratio=settings.break_ratio,
    )
    return DeviceParts(
        service=service,
        link=link,
        clock=life.clock,
        folder=folder,
        phone=life.phone,
        data=data,
        runtime=settings.runtime,
        faults=faults,
        own_code=settings.own_code,
        tell=tell,
    )
