"""The devices of a population: who they are, who may speak for them, and who does no more."""

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa

from pocketfleet.training.server.credentials import device_credential, same_secret, secret_hash, split_credential
from pocketfleet.training.server.database import BENCHMARKS, DECISIONS, DEVICES, TOKENS
from pocketfleet.training.server.leadership import Leadership
from pocketfleet.training.server.protocol import Enrolled, Enrolment

__all__ = ["Device", "DeviceRegister", "State"]

State = Literal["enrolled", "revoked", "left", "forgotten"]
# Stands for a device that is not there, so that refusing it takes as long.
_NOBODY = secret_hash("")


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A row; ``number`` is dense, in order of enrolment."""

    number: int
    device_id: str
    credential_sha256: str
    state: State


class DeviceRegister:
    """All devices by id, in memory; one thread writes, any may read.

    Args:
        database: of the service.
        leadership: whose transactions write.
        most: devices that can ever enrol.
    """

    def __init__(self, database: sa.Engine, leadership: Leadership, *, most: int) -> None:
        self._database = database
        self._leadership = leadership
        self._most = most
        self._devices: dict[str, Device] = {}
        self._count = 0
        self._lock = threading.Lock()

    def load(self) -> None:
        """Read all of them anew, also what an administrator changed."""
        columns = (DEVICES.c.device, DEVICES.c.device_id, DEVICES.c.credential_sha256, DEVICES.c.state)
        with self._database.connect() as connection:
            rows = connection.execute(sa.select(*columns)).all()
        found = {
            row.device_id: Device(
                number=row.device, device_id=row.device_id, credential_sha256=row.credential_sha256, state=row.state
            )
            for row in rows
        }
        with self._lock:
            self._devices, self._count = found, len(rows)

    @property
    def enrolled(self) -> int:
        """Devices that take part."""
        with self._lock:
            return sum(device.state == "enrolled" for device in self._devices.values())

    def authenticated(self, credential: str) -> Device | None:
        """Whose a credential is; ``None``: nobody's. Revoked ones are told apart by their state."""
        device_id, secret = split_credential(credential)
        device = self._devices.get(device_id)
        same = same_secret(secret, device.credential_sha256 if device else _NOBODY)
        return device if device is not None and same else None

    def enrol(self, request: Enrolment, *, now_s: float) -> Enrolled | None:
        """A new device for an unused token; ``None``: it is no such token, or all places are taken.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: nothing was written.
        """
        if self._count >= self._most:
            return None
        device_id, credential, stored = device_credential()
        with self._leadership.begin() as connection:
            used = connection.execute(
                sa.update(TOKENS)
                .where(TOKENS.c.token_sha256 == secret_hash(request.token), TOKENS.c.device.is_(None))
                .values(device=self._count)
            )
            if used.rowcount != 1:
                return None
            connection.execute(
                sa.insert(DEVICES),
                {
                    "device": self._count,
                    "device_id": device_id,
                    "credential_sha256": stored,
                    "enrolled_s": now_s,
                    "state": "enrolled",
                    "phone": json.dumps(request.phone.model_dump()),
                    "app_version": request.app_version,
                },
            )
        with self._lock:
            self._devices[device_id] = Device(
                number=self._count, device_id=device_id, credential_sha256=stored, state="enrolled"
            )
            self._count += 1
        return Enrolled(device_id=device_id, credential=credential)

    def end(self, device: Device, state: State) -> None:
        """A device takes part no more; of a forgotten one nothing is kept that it said of itself."""
        values: Mapping[str, Any] = {"state": state}
        if state == "forgotten":
            values = {"state": state, "phone": "{}", "app_version": ""}
        with self._leadership.begin() as connection:
            connection.execute(sa.update(DEVICES).where(DEVICES.c.device == device.number).values(**values))
            if state == "forgotten":
                connection.execute(sa.delete(BENCHMARKS).where(BENCHMARKS.c.device == device.number))
                connection.execute(sa.update(DECISIONS).where(DECISIONS.c.device == device.number).values(note=""))
        with self._lock:
            self._devices[device.device_id] = Device(
                number=device.number,
                device_id=device.device_id,
                credential_sha256=device.credential_sha256,
                state=state,
            )

    def number_of(self, device_id: str) -> int | None:
        """A device's number; ``None``: there is none of that id."""
        device = self._devices.get(device_id)
        return device.number if device else None
