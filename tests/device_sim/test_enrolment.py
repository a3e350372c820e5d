from collections import deque
from pathlib import Path

import pytest
from small_service import Fault, SmallService

from pocketfleet.device_sim.device_folder import DeviceFolder
from pocketfleet.device_sim.enrolment import enrolled
from pocketfleet.device_sim.phone import find_phone
from pocketfleet.errors import InputError

PIXEL = find_phone("Pixel 8")


def test_a_token_is_traded_once_and_kept_before_it_is_used(tmp_path: Path) -> None:
    folder = DeviceFolder(tmp_path)
    with SmallService() as service:
        made = enrolled(folder, f"{service.url}/", "good", PIXEL)
        assert DeviceFolder(tmp_path).credential() == made
        assert (made.url, made.device_id, made.credential) == (service.url, "device-one", "secret")
        assert enrolled(folder, service.url, "another", PIXEL) == made
        (asked,) = service.requests("enrol")
    assert b'"model":"Pixel 8"' in asked.body
    assert "authorization" not in asked.headers


def test_a_refused_token_leaves_nothing(tmp_path: Path) -> None:
    with SmallService() as service, pytest.raises(InputError, match="Each is good for one device, once"):
        enrolled(DeviceFolder(tmp_path), service.url, "bad", PIXEL)
    assert DeviceFolder(tmp_path).credential() is None


def test_a_service_that_is_busy_is_waited_for(tmp_path: Path) -> None:
    with SmallService() as service:
        service.faults["enrol"] = deque([Fault("unavailable", 0.1)])
        assert enrolled(DeviceFolder(tmp_path), service.url, "good", PIXEL).device_id == "device-one"
