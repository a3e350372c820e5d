import base64
import hashlib
import time
from collections import deque
from pathlib import Path

import pytest
from small_service import Fault, SmallService

from pocketfleet.device_sim.phone_clock import PhoneClock
from pocketfleet.device_sim.service_client import Refused, ServiceClient, Unreachable
from pocketfleet.errors import InputError, PocketfleetError
from pocketfleet.training.server.protocol import BenchmarkResult, CheckIn, Enrolment, FileEntry, ReportFacts

CHECK_IN = CheckIn(protocol=1, programs={"onnx": "1"}, codecs=["lossless"])
FACTS = ReportFacts(num_examples=30, steps=4, examples_held=38, train_loss=0.1, metric_global=2.5)
DATA = bytes(range(256)) * 400


def client_of(service: SmallService, credential: str = "secret") -> ServiceClient:
    return ServiceClient(service.url, clock=PhoneClock(), credential=credential)


@pytest.mark.parametrize(
    "url", ["", "localhost", "http://host", "http://host/v1/populations/", "ftp://host/v1/populations/a", "http://[x"]
)
def test_a_url_is_a_populations(url: str) -> None:
    with pytest.raises(InputError, match=r"such as http://host:8080/v1/populations/boston"):
        ServiceClient(url, clock=PhoneClock())


def test_a_token_becomes_a_credential() -> None:
    with SmallService() as service, client_of(service, "") as client:
        assert client.enrol(Enrolment(token="good"), tries=1).credential == "secret"
        with pytest.raises(Refused, match="the token is not known") as refused:
            client.enrol(Enrolment(token="bad"), tries=1)
        assert (refused.value.status, refused.value.code) == (401, "wrong_token")


def test_what_is_not_there_now_is_asked_for_again() -> None:
    with SmallService() as service, client_of(service) as client:
        service.faults["check-in"] = deque([Fault("unavailable", 0.3), Fault("cut")])
        began_s = time.monotonic()
        answer = client.check_in(CHECK_IN)
        assert answer.turned_away is not None
        assert answer.turned_away.reason == "finished"
        # 0.3 s as asked, and half of the second back-off, 0.5 s, at least.
        assert time.monotonic() - began_s > 0.5
        assert len(service.requests("check-in")) == 3


def test_nobody_waits_for_ever() -> None:
    clock = PhoneClock()
    gone = ServiceClient("http://127.0.0.1:9/v1/populations/test", clock=clock)
    with pytest.raises(Unreachable, match=r"cannot reach http://127.0.0.1:9/.*Is pocketfleet serve running there"):
        gone.status(tries=2)
    with pytest.raises(Unreachable):
        gone.status(until_s=clock.now_s() + 0.2)
    assert clock.now_s() < 3.0


def test_people_are_told_when_nobody_answers_for_long() -> None:
    told: list[str] = []
    gone = ServiceClient("http://127.0.0.1:9/v1/populations/test", clock=PhoneClock(), tell=told.append)
    with pytest.raises(Unreachable):
        gone.status(tries=5)
    assert len(told) == 1
    assert "goes on trying" in told[0]


def test_a_report_says_what_it_is() -> None:
    with SmallService() as service, client_of(service) as client:
        assert client.report(7, FACTS, DATA).code == "accepted"
        assert client.report(7, FACTS, DATA).code == "repeated"
        first, second = service.requests("reports/")
        assert first == second
        assert first.body == DATA
        # What is left out is not sent; numbers keep their bits.
        assert first.query == {
            "num_examples": "30",
            "steps": "4",
            "examples_held": "38",
            "train_loss": "0.1",
            "metric_global": "2.5",
        }
        digest = base64.b64encode(hashlib.sha256(DATA).digest()).decode()
        assert first.headers["content-digest"] == f"sha-256=:{digest}:"
        assert first.headers["content-type"] == "application/octet-stream"
        assert first.headers["content-length"] == str(len(DATA))
        service.report_codes.append("late")
        with pytest.raises(Refused) as refused:
            client.report(8, FACTS, DATA)
        assert (refused.value.status, refused.value.code) == (409, "late")


def test_a_file_goes_on_where_its_connection_was_cut(tmp_path: Path) -> None:
    with SmallService() as service, client_of(service) as client:
        entry = service.add(DATA)
        service.faults["files"] = deque([Fault("cut", 30_000), Fault("unavailable", 0.0), Fault("cut", 20_000)])
        assert client.fetch(entry, tmp_path).read_bytes() == DATA
        asked = [came.headers.get("range") for came in service.requests("files/")]
        assert asked == [None, "bytes=30000-", "bytes=30000-", "bytes=50000-"]
        # What is there is not asked for again, unless it was altered since.
        client.fetch(entry, tmp_path)
        assert len(service.requests("files/")) == 4
        (tmp_path / entry.sha256).write_bytes(b"altered")
        assert client.fetch(entry, tmp_path).read_bytes() == DATA
        assert [file.name for file in tmp_path.iterdir()] == [entry.sha256]


def test_a_part_of_an_earlier_process_is_continued(tmp_path: Path) -> None:
    with SmallService() as service, client_of(service) as client:
        entry = service.add(DATA)
        (tmp_path / f".{entry.sha256}.partial").write_bytes(DATA[:1_000])
        assert client.fetch(entry, tmp_path).read_bytes() == DATA
        assert service.requests("files/")[0].headers["range"] == "bytes=1000-"


def test_damaged_bytes_are_thrown_away_and_asked_for_a_few_times(tmp_path: Path) -> None:
    with SmallService() as service, client_of(service) as client:
        entry = service.add(DATA)
        service.faults["files"] = deque([Fault("damaged")])
        assert client.fetch(entry, tmp_path).read_bytes() == DATA
        (tmp_path / entry.sha256).unlink()
        service.faults["files"] = deque([Fault("damaged")] * 3)
        with pytest.raises(PocketfleetError, match="3 times in a row"):
            client.fetch(entry, tmp_path)
        assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with SmallService() as service, client_of(service) as client, pytest.raises(Refused, match="no such file"):
        client.fetch(FileEntry(sha256="a" * 64, bytes=5), tmp_path)


def test_the_other_routes() -> None:
    with SmallService() as service, client_of(service) as client:
        assert client.status().device_id == "device-one"
        client.benchmark(BenchmarkResult(program="onnx", batch_size=8, median_s=0.01, repeats=5), tries=1)
        client.leave(tries=1)
        client.forget_me(tries=1)
        assert [(came.method, came.path) for came in service.came] == [
            ("GET", "status"),
            ("POST", "benchmarks"),
            ("POST", "leave"),
            ("DELETE", "device"),
        ]
        with client_of(service, "wrong") as wrong, pytest.raises(Refused) as refused:
            wrong.status()
        assert refused.value.status == 401


def test_an_answer_of_another_protocol_is_told() -> None:
    with SmallService() as service, client_of(service) as client:
        service.when_empty = "something new"
        with pytest.raises(PocketfleetError, match="none of protocol version 1"):
            client.check_in(CHECK_IN)
