"""How a device gets its credential: a one-time token is traded for it, and it is on the disk before it is used."""

from pocketfleet.device_sim.device_folder import Credential, DeviceFolder
from pocketfleet.device_sim.phone import Phone as CataloguePhone
from pocketfleet.device_sim.phone_clock import PhoneClock
from pocketfleet.device_sim.service_client import Refused, ServiceClient
from pocketfleet.errors import InputError
from pocketfleet.training.server.protocol import Enrolment, Phone

__all__ = ["enrolled"]

# The first contact: who waits at a terminal is told within seconds.
_TRIES = 3


def enrolled(folder: DeviceFolder, url: str, token: str, phone: CataloguePhone) -> Credential:
    """The device's credential: the one that it has, or a new one for a token.

    Args:
        folder: the device's.
        url: of the population.
        token: for one enrolment; empty: the device has its credential already.
        phone: told to the service.

    Raises:
        InputError: the folder is another service's, there is no token, or the service does not take it.
    """
    there = folder.credential()
    # Checked even where it is not needed.
    with ServiceClient(url, clock=PhoneClock()) as service:
        if there is not None:
            if there.url != service.url:
                raise InputError(
                    f"{folder.path} belongs to a device of {there.url}, got {service.url}: name another --state folder"
                )
            return there
        if not token:
            raise InputError(
                f"{folder.path} holds no credential: give --token, which the service's administrator issues "
                "(pocketfleet admin token)"
            )
        told = Phone(model=phone.name, memory_bytes=int(phone.ram_bytes))
        try:
            answer = service.enrol(Enrolment(token=token, phone=told), tries=_TRIES)
        except Refused as exc:
            if exc.status not in {401, 403}:
                raise InputError(f"the service does not enrol this device: {exc}") from exc
            raise InputError(
                f"the service does not take the token: {exc}. Each is good for one device, once: ask for a new one "
                "(pocketfleet admin token), or name the --state folder of the device that it enrolled"
            ) from exc
    credential = Credential(url=service.url, device_id=answer.device_id, credential=answer.credential)
    folder.keep_credential(credential)
    return credential
