import stat
from pathlib import Path

import numpy as np
import pytest
import torch
from small_service import SmallService, work_of

from pocketfleet import Bundle
from pocketfleet.device_sim.device_folder import Credential, DeviceFolder, FinishedReport, PhoneFacts, WorkUnderWay
from pocketfleet.errors import InputError
from pocketfleet.training.server.protocol import ReportFacts

FACTS = ReportFacts(num_examples=30, steps=4, examples_held=38, train_loss=0.1)


def report(number: int = 7) -> FinishedReport:
    line = {"assignment_id": number, "round": 3, "outcome": "accepted", "expected": {"train_s": 0.1}}
    return FinishedReport(assignment_id=number, deadline_wall_s=1e9, facts=FACTS, line=line)


def finished(path: Path) -> DeviceFolder:
    folder = DeviceFolder(path)
    folder.finish(report(), b"update", state={"c": torch.tensor([2.0])}, model={"w": torch.tensor([1.0])})
    return folder


def test_a_credential_is_its_owners_alone(tmp_path: Path) -> None:
    folder = DeviceFolder(tmp_path)
    assert folder.credential() is None
    credential = Credential(url="http://a/v1/populations/b", device_id="d", credential="secret")
    folder.keep_credential(credential)
    assert DeviceFolder(tmp_path).credential() == credential
    assert stat.S_IMODE((tmp_path / "credential.json").stat().st_mode) == 0o600


def test_what_a_phone_is_outlives_the_process(tmp_path: Path, boston_bundle: Bundle) -> None:
    folder = DeviceFolder(tmp_path)
    assert (folder.phone(), folder.phone_state(), folder.work(), folder.state()) == (None, {}, None, {})
    facts = PhoneFacts(first_s=10.5, first_wall_s=1e9, lives=2)
    folder.keep_phone(facts)
    folder.keep_phone_state({"battery.level_joules": np.array([1.5, 2.5])})
    with SmallService() as service:
        work = WorkUnderWay(assignment=work_of(service, boston_bundle), deadline_wall_s=1e9)
    folder.begin(work)
    again = DeviceFolder(tmp_path)
    assert (again.phone(), again.work()) == (facts, work)
    assert again.phone_state()["battery.level_joules"].tolist() == [1.5, 2.5]


def test_what_a_device_keeps_takes_effect_with_the_acknowledgement(tmp_path: Path) -> None:
    folder = finished(tmp_path)
    assert folder.report() == report()
    assert folder.update() == b"update"
    assert folder.state() == {}
    folder.acknowledge(report())
    assert folder.state()["c"].tolist() == [2.0]
    assert (tmp_path / "model.safetensors").exists()
    assert (folder.report(), folder.work()) == (None, None)
    assert [line["assignment_id"] for line in folder.rounds()] == [7]


def test_an_acknowledgement_that_a_crash_broke_off_is_made_again(tmp_path: Path, monkeypatch) -> None:
    folder = finished(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(DeviceFolder, "give_up", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            folder.acknowledge(report())
    assert folder.report() == report()
    folder.acknowledge(report())
    assert len(folder.rounds()) == 1
    assert folder.report() is None


def test_a_report_that_is_given_up_changes_nothing(tmp_path: Path) -> None:
    folder = finished(tmp_path)
    folder.give_up()
    assert (folder.report(), folder.state(), folder.rounds()) == (None, {}, [])


def test_a_torn_line_spoils_no_other(tmp_path: Path) -> None:
    folder = DeviceFolder(tmp_path)
    folder.note({"assignment_id": 1})
    with (tmp_path / "rounds.jsonl").open("a") as file:
        file.write('{"assignment')
    folder.note({"assignment_id": 2})
    folder.note({"assignment_id": 2})
    assert folder.rounds() == [{"assignment_id": 1}, {"assignment_id": 2}]


def test_storage_does_not_grow(tmp_path: Path) -> None:
    folder = DeviceFolder(tmp_path)
    for name in ("a" * 64, "b" * 64, f".{'b' * 64}.partial", f".{'c' * 64}.partial"):
        (folder.files / name).touch()
    for name in ("old", "new"):
        folder.bundle_folder(name).mkdir(parents=True)
    folder.keep_only(["b" * 64], "new")
    assert sorted(file.name for file in folder.files.iterdir()) == [f".{'b' * 64}.partial", "b" * 64]
    assert [path.name for path in (tmp_path / "bundles").iterdir()] == ["new"]


def test_a_damaged_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "phone.json").write_text("{}")
    with pytest.raises(InputError, match=r"phone.json is damaged .*name another --state"):
        DeviceFolder(tmp_path).phone()
