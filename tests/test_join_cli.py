from pathlib import Path

import pytest
import typer
from small_service import SmallService, work_of

from pocketfleet import Bundle
from pocketfleet.device_sim.device_folder import DeviceFolder
from pocketfleet.errors import InputError
from pocketfleet.folder_lock import try_lock
from pocketfleet.join_cli import join

NAMES = [f"f{number}" for number in range(13)]


@pytest.fixture
def alice(tmp_path: Path) -> Path:
    """Twenty rows of a table that a line fits."""
    lines = [",".join([*NAMES, "price"])]
    lines += [",".join(map(str, [*((row * column) % 7 for column in range(13)), row % 7 + 10])) for row in range(20)]
    path = tmp_path / "alice.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def called(url: str, data: Path, **options: object) -> None:
    """The command, as ``cli`` calls it."""
    values = {"token": "good", "runtime": "onnx", "speed": 50.0, "state": data.parent / "device"}
    join(url, data=data, **{**values, **options})


def test_a_phone_joins_trains_and_goes_on(alice: Path, boston_bundle: Bundle, capsys) -> None:
    with SmallService() as service:
        service.assignments += [work_of(service, boston_bundle, number) for number in range(3)]
        called(service.url, alice, rounds=2)
        first = capsys.readouterr().out.splitlines()
        # The token has done its work: the same device, by the folder.
        called(service.url, alice, token="")
        second = capsys.readouterr().out.splitlines()
        assert len(service.requests("enrol")) == 1
        reports = service.requests("reports/")
    assert first[0] == f"enrolled: device device-one, kept in {alice.parent / 'device'}"
    assert first[1].startswith("round 0: trained version 0 for 2 steps in ")
    assert "on 4 held out" in first[1]
    assert first[-1].startswith("2 reports were taken; the phone's own model is in ")
    assert second[0].startswith("round 2: trained version 0 for 2 steps")
    assert second[1:] == ["is not needed any more: nothing more", second[-1]]
    assert second[-1].startswith("1 reports were taken")
    # 20 rows, of which 4 are held out: 16 in two batches of 8.
    assert [(came.query["num_examples"], came.query["examples_held"]) for came in reports] == [("16", "20")] * 3
    assert (alice.parent / "device" / "model.safetensors").exists()


def test_a_wrong_token_is_told(alice: Path) -> None:
    with (
        SmallService() as service,
        pytest.raises(InputError, match=r"does not take the token.*pocketfleet admin token"),
    ):
        called(service.url, alice, token="bad")


def test_a_first_time_needs_a_token(alice: Path) -> None:
    with SmallService() as service, pytest.raises(InputError, match=r"holds no credential: give --token"):
        called(service.url, alice, token="")


def test_a_service_that_is_not_there_is_told_soon(alice: Path) -> None:
    with pytest.raises(InputError, match=r"cannot reach http://127.0.0.1:9/.*Is pocketfleet serve running"):
        called("http://127.0.0.1:9/v1/populations/test", alice)


def test_a_folder_is_one_devices(alice: Path) -> None:
    with SmallService() as service:
        called(service.url, alice)
        with pytest.raises(InputError, match=r"belongs to a device of http://127.0.0.1:.*name another --state folder"):
            called("http://127.0.0.1:9/v1/populations/other", alice)
        lock = try_lock(DeviceFolder(alice.parent / "device").path)
        assert lock is not None
        with lock, pytest.raises(InputError, match="is in use: another process runs this device"):
            called(service.url, alice)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"phone": "Pixle 8"}, r"there is no phone 'Pixle 8' in the catalogue; close names: Pixel 8"),
        ({"network": "moon"}, "moon"),
        ({"availability": "never"}, "fleet.availability must be one of"),
        ({"runtime": "torch"}, "--runtime must be executorch or onnx, got 'torch'"),
        ({"speed": 0.0}, "--speed must be above 0"),
        ({"target": "tax"}, r"has no column 'tax', which --target names"),
        ({"data": Path("bob.csv")}, r"there is no file bob.csv"),
    ],
)
def test_what_is_wrong_is_told(alice: Path, options: dict[str, object], message: str) -> None:
    with SmallService() as service, pytest.raises(InputError, match=message):
        called(service.url, **{"data": alice, "state": alice.parent / "device", **options})


def test_a_table_of_other_columns_is_told(alice: Path, boston_bundle: Bundle) -> None:
    alice.write_text("a,b,c\n1,2,3\n4,5,6\n")
    with SmallService() as service:
        service.assignments.append(work_of(service, boston_bundle))
        with pytest.raises(InputError, match=r"must hold 13 columns of features.*it holds 2: 'a', 'b'"):
            called(service.url, alice)


def test_an_interruption_leaves_the_device_as_it_is(alice: Path, monkeypatch, capsys) -> None:
    def interrupted(self: object, *, reports: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pocketfleet.device_sim.emulated_device.EmulatedDevice.run", interrupted)
    with SmallService() as service, pytest.raises(typer.Exit) as ended:
        called(service.url, alice)
    assert ended.value.exit_code == 130
    assert "the same command goes on from" in capsys.readouterr().err
