"""What an emulated device is made of, and how an attempt ends that ends badly."""

from collections.abc import Callable
from dataclasses import dataclass

from pocketfleet.device_sim.device_data import HeldExamples
from pocketfleet.device_sim.device_folder import DeviceFolder
from pocketfleet.device_sim.emulated_phone import EmulatedPhone
from pocketfleet.device_sim.fault_plan import FaultPlan
from pocketfleet.device_sim.phone_clock import PhoneClock
from pocketfleet.device_sim.service_client import ServiceClient
from pocketfleet.device_sim.shaped_transport import Link
from pocketfleet.errors import PocketfleetError
from pocketfleet.export.session import Runtime
from pocketfleet.export.signature import Signature

__all__ = ["NOT_FINITE", "DeviceParts", "Dropped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceParts:
    """What a device is made of.

    Attributes:
        service: whom it talks to.
        link: over what.
        clock: the phone's.
        folder: what it keeps.
        phone: around it.
        data: its examples, as a bundle's programs take them.
        runtime: that executes the programs, loaded, with one thread.
        faults: what happens to it.
        own_code: see ``DeviceWork.of``.
        tell: hears a line about whatever happens.
    """

    service: ServiceClient
    link: Link
    clock: PhoneClock
    folder: DeviceFolder
    phone: EmulatedPhone
    data: Callable[[Signature], HeldExamples]
    runtime: Runtime
    faults: FaultPlan
    own_code: bool
    tell: Callable[[str], None]


# The word of training that gave no finite numbers.
NOT_FINITE = "not_finite"


class Dropped(PocketfleetError):  # noqa: N818 - phones drop out; nothing is wrong
    """An attempt is over without a report; the message is the reason's word."""
