"""One start of an emulated device: its phone as the last one left it, its clock gone on."""

from dataclasses import dataclass

from pocketfleet.device_sim.device_folder import DeviceFolder, PhoneFacts
from pocketfleet.device_sim.eligibility import Rule
from pocketfleet.device_sim.emulated_phone import EmulatedPhone, PhoneUnit
from pocketfleet.device_sim.phone_clock import PhoneClock
from pocketfleet.training.server.wall_clock import wall_s

__all__ = ["DeviceLife", "begin_life"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceLife:
    """What a start begins with; ``number`` of them were before."""

    phone: EmulatedPhone
    clock: PhoneClock
    number: int


def begin_life(
    folder: DeviceFolder, unit: PhoneUnit, *, speed: float, first_s: float = 0.0, rule: Rule | None = None
) -> DeviceLife:
    """Start a phone.

    Args:
        folder: the device's.
        unit: which phone.
        speed: of its clock.
        first_s: what the clock shows at the very first start.
        rule: by which it may train until the service tells another; the usual one if left out.
    """
    before, state = folder.phone(), folder.phone_state()
    if before is not None and before.rule is not None:
        rule = Rule(**before.rule.model_dump())
    phone = EmulatedPhone(unit, rule or Rule())
    least_s = 0.0
    if state:
        phone.restore(state)
        least_s = phone.known_until_s(state)
    clock = PhoneClock(
        speed=speed,
        first_s=first_s if before is None else before.first_s,
        first_wall_s=None if before is None else before.first_wall_s,
        least_s=least_s,
    )
    lives = 0 if before is None else before.lives
    folder.keep_phone(
        PhoneFacts(
            first_s=clock.now_s(),
            first_wall_s=wall_s(),
            lives=lives + 1,
            rule=None if before is None else before.rule,
        )
    )
    return DeviceLife(phone=phone, clock=clock, number=lives)
