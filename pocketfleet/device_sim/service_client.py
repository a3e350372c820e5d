"""What one device says to the service, and how often: protocol version 1 over HTTP.

Rules:

1. A connection that fails, and an answer of 500 and above, are tried again after a back-off that doubles, with a drawn
   share of it left out so that devices do not come together; 429 and 503 after the seconds that they ask for.
2. Trying ends with ``until_s``, the phone's time, or after so many tries: ``Unreachable``. A refusal is final:
   ``Refused``.
3. A file is named by the SHA-256 of its bytes and kept by that name. What a broken connection left of it is kept too,
   and continued by a range request. It gets its name once its hash was found right; that is looked at before each use.
"""

import base64
import hashlib
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from pocketfleet.device_sim.phone_clock import PhoneClock
from pocketfleet.errors import InputError, PocketfleetError
from pocketfleet.export.manifest import file_sha256
from pocketfleet.training.draws import draw_key, uniform
from pocketfleet.training.server.protocol import (
    BenchmarkResult,
    CheckIn,
    CheckInAnswer,
    Enrolled,
    Enrolment,
    ErrorAnswer,
    EvaluationAnswer,
    EvaluationReport,
    FileEntry,
    ReportAnswer,
    ReportFacts,
    StageWait,
    Status,
)

__all__ = ["Refused", "ServiceClient", "Unreachable"]

# Seconds of the wall: the first wait, and the longest; those of common HTTP clients.
_FIRST_BACK_OFF_S, _LONGEST_BACK_OFF_S = 0.25, 30.0
# A service that says nothing for so long is not there.
_TIMEOUT_S = 30.0
# After so many failures in a row, some seconds, people want to know.
_TOLD_FAILURES = 4
# So often a file may come damaged before the device stops asking.
_MOST_DAMAGED = 3

Answer = TypeVar("Answer", bound=BaseModel)


class Unreachable(InputError):  # noqa: N818 - as HTTP's own words
    """Nobody answered in time."""


class Refused(PocketfleetError):  # noqa: N818
    """The service answered, and does not do it; ``code`` is for programs."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(f"{message} ({status} {code})")
        self.status, self.code = status, code


def _silent(line: str) -> None:
    """Nobody hears."""


class ServiceClient:
    """One device's side of a population's service.

    Args:
        url: of the population, as ``pocketfleet serve`` prints it.
        clock: the phone's.
        transport: the phone's link; the host's own if left out.
        credential: of the device, once it is enrolled.
        device: tells the draws of devices apart.
        tell: hears when the service cannot be reached for long.

    Raises:
        InputError: the URL is none of a population.
    """

    def __init__(
        self,
        url: str,
        *,
        clock: PhoneClock,
        transport: httpx.BaseTransport | None = None,
        credential: str = "",
        device: int = 0,
        tell: Callable[[str], None] = _silent,
    ) -> None:
        self.url = _checked_url(url)
        self.credential = credential
        self._clock = clock
        self._device = device
        self._tell = tell
        self._waits = 0
        self._http = httpx.Client(transport=transport, timeout=_TIMEOUT_S, follow_redirects=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def enrol(self, enrolment: Enrolment, *, tries: int) -> Enrolled:
        """Turn a token into a credential, which the caller keeps before anything else."""
        return self._asked(Enrolled, "POST", "enrol", body=enrolment, tries=tries)

    def check_in(self, check_in: CheckIn, *, until_s: float = math.inf, tries: int = 0) -> CheckInAnswer:
        """Ask for work."""
        return self._asked(CheckInAnswer, "POST", "check-in", body=check_in, until_s=until_s, tries=tries)

    def status(self, *, until_s: float = math.inf, tries: int = 0) -> Status:
        """What the service knows of this device."""
        return self._asked(Status, "GET", "status", until_s=until_s, tries=tries)

    def benchmark(self, result: BenchmarkResult, *, tries: int) -> None:
        """Tell what a step took here."""
        self._request("POST", "benchmarks", content=result.model_dump_json().encode(), tries=tries)

    def leave(self, *, tries: int) -> None:
        """Give up what this device was asked for."""
        self._request("POST", "leave", tries=tries)

    def forget_me(self, *, tries: int) -> None:
        """Let the service forget this device; the credential is worth nothing afterwards."""
        self._request("DELETE", "device", tries=tries)

    def report(
        self, assignment_id: int, facts: ReportFacts, update: bytes, *, until_s: float = math.inf, tries: int = 0
    ) -> ReportAnswer:
        """Send an update; sent again, it is the same report."""
        digest = base64.b64encode(hashlib.sha256(update).digest()).decode()
        return self._asked(
            ReportAnswer,
            "PUT",
            f"reports/{assignment_id}",
            content=update,
            params=facts.model_dump(exclude_none=True),
            # RFC 9530: the bytes between colons are base64 (RFC 8941, section 3.3.5).
            headers={"Content-Type": "application/octet-stream", "Content-Digest": f"sha-256=:{digest}:"},
            until_s=until_s,
            tries=tries,
        )

    def stage_input(self, assignment_id: int, stage: str, *, until_s: float = math.inf) -> bytes:
        """What this device needs for its message of a stage of a secure sum, as soon as that is there."""
        path = f"reports/{assignment_id}/stages/{stage}"
        while True:
            answer = self._request("GET", path, until_s=until_s)
            if answer.status_code != httpx.codes.ACCEPTED:
                return answer.content
            wait = self._read(StageWait, answer, f"GET {path}")
            self._pause(wait.retry_after_s, failures=0, until_s=until_s, tries=0, cause=None)

    def stage(self, assignment_id: int, stage: str, message: bytes, *, until_s: float = math.inf) -> None:
        """Send this device's message of a stage; sent again, it is the same one."""
        headers = {"Content-Type": "application/octet-stream"}
        path = f"reports/{assignment_id}/stages/{stage}"
        self._request("POST", path, content=message, headers=headers, until_s=until_s)

    def evaluation(
        self, evaluation_id: int, report: EvaluationReport, *, until_s: float = math.inf, tries: int = 0
    ) -> EvaluationAnswer:
        """Send an evaluation; sent again, it is the same one."""
        path = f"evaluations/{evaluation_id}"
        return self._asked(EvaluationAnswer, "PUT", path, body=report, until_s=until_s, tries=tries)

    def fetch(self, entry: FileEntry, folder: Path, *, until_s: float = math.inf) -> Path:
        """The file, from ``folder`` if it is there, or else brought into it.

        Raises:
            Refused: the service does not give it.
            Unreachable: not by ``until_s``.
            PocketfleetError: what comes has another hash, again and again.
        """
        target, partial = folder / entry.sha256, folder / f".{entry.sha256}.partial"
        if target.is_file():
            if file_sha256(target) == entry.sha256:
                return target
            target.unlink()
        for _ in range(_MOST_DAMAGED):
            self._complete(entry, partial, until_s=until_s)
            if file_sha256(partial) == entry.sha256:
                return partial.replace(target)
            partial.unlink()
        raise PocketfleetError(
            f"the service gives {entry.sha256} with other bytes than that hash's, {_MOST_DAMAGED} times in a row: "
            "something between here and there alters them"
        )

    def _complete(self, entry: FileEntry, partial: Path, *, until_s: float) -> None:
        """Bring what is missing of a file, over as many connections as it takes."""
        failures = 0
        while not partial.exists() or partial.stat().st_size < entry.bytes:
            held = partial.stat().st_size if partial.exists() else 0
            wait_s, cause = math.nan, None
            try:
                wait_s = self._continue(entry, partial, held)
            except httpx.TransportError as exc:
                cause = exc
            # A connection that brought something was worth it: no reason to wait before the next.
            grown = partial.stat().st_size > held
            failures = 0 if grown else failures + 1
            if partial.stat().st_size < entry.bytes:
                self._pause(0.0 if grown else wait_s, failures=failures, until_s=until_s, tries=0, cause=cause)

    def _continue(self, entry: FileEntry, partial: Path, held: int) -> float:
        """One request for the rest of a file; returns the seconds to wait before the next, nan for a back-off."""
        headers = {"Range": f"bytes={held}-"} if held else {}
        with (
            partial.open("ab") as file,
            self._http.stream("GET", self._address(f"files/{entry.sha256}"), headers=self._headers(headers)) as answer,
        ):
            if answer.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
                file.truncate(0)
                return math.nan
            if answer.status_code >= httpx.codes.BAD_REQUEST:
                answer.read()
                return _wait_or_refuse(answer)
            if answer.status_code != httpx.codes.PARTIAL_CONTENT:
                file.truncate(0)
                held = 0
            elif not answer.headers.get("Content-Range", "").startswith(f"bytes {held}-"):
                raise PocketfleetError(
                    f"the service was asked for bytes from {held} on of {entry.sha256} and answered "
                    f"{answer.headers.get('Content-Range')!r}"
                )
            for part in answer.iter_raw():
                file.write(part[: entry.bytes - held])
                held += len(part)
                if held > entry.bytes:
                    break
        return math.nan

    def _asked(
        self,
        kind: type[Answer],
        method: str,
        path: str,
        *,
        body: BaseModel | None = None,
        content: bytes | None = None,
        params: Mapping[str, int | float] | None = None,
        headers: Mapping[str, str] | None = None,
        until_s: float = math.inf,
        tries: int = 0,
    ) -> Answer:
        if body is not None:
            content, headers = body.model_dump_json().encode(), {"Content-Type": "application/json"}
        answer = self._request(
            method, path, content=content, params=params, headers=headers, until_s=until_s, tries=tries
        )
        return self._read(kind, answer, f"{method} {path}")

    def _read(self, kind: type[Answer], answer: httpx.Response, request: str) -> Answer:
        try:
            return kind.model_validate_json(answer.content)
        except ValidationError as exc:
            raise PocketfleetError(
                f"{request}: the answer is none of protocol version 1: {exc.errors(include_url=False)[0]['msg']}"
            ) from exc

    def _request(
        self,
        method: str,
        path: str,
        *,
        content: bytes | None = None,
        params: Mapping[str, int | float] | None = None,
        headers: Mapping[str, str] | None = None,
        until_s: float = math.inf,
        tries: int = 0,
    ) -> httpx.Response:
        failures = 0
        while True:
            cause = None
            try:
                answer = self._http.request(
                    method, self._address(path), content=content, params=params, headers=self._headers(headers or {})
                )
            except httpx.TransportError as exc:
                wait_s, cause = math.nan, exc
            else:
                if answer.status_code < httpx.codes.BAD_REQUEST:
                    return answer
                wait_s = _wait_or_refuse(answer)
            failures += 1
            self._pause(wait_s, failures=failures, until_s=until_s, tries=tries, cause=cause)

    def _pause(self, wait_s: float, *, failures: int, until_s: float, tries: int, cause: Exception | None) -> None:
        """Wait before the next try: so many seconds of the wall, or a back-off where they are nan."""
        if math.isnan(wait_s):
            wait_s = self._back_off_s(failures)
        ends_s = self._clock.now_s() + wait_s * self._clock.speed
        if ends_s >= until_s or (tries and failures >= tries):
            raise Unreachable(_unreachable(self.url, cause)) from cause
        if failures == _TOLD_FAILURES:
            self._tell(f"cannot reach {self.url}, and goes on trying{_found(cause)}")
        self._clock.wait_until(ends_s)

    def _back_off_s(self, failures: int) -> float:
        self._waits += 1
        share = float(uniform(draw_key(self._device, "service.back_off", self._waits), 1)[0])
        # Beyond 2**10 the longest wait holds anyway.
        return min(_FIRST_BACK_OFF_S * 2.0 ** min(failures - 1, 10), _LONGEST_BACK_OFF_S) * (1.0 - 0.5 * share)

    def _address(self, path: str) -> str:
        return f"{self.url}/{path}"

    def _headers(self, more: Mapping[str, str]) -> dict[str, str]:
        # Files are named by the hash of what is sent: nothing is to be compressed on the way.
        known = {"Accept-Encoding": "identity"}
        if self.credential:
            known["Authorization"] = f"Bearer {self.credential}"
        return known | dict(more)


def _wait_or_refuse(answer: httpx.Response) -> float:
    """Seconds until the next try, nan for a back-off.

    Raises:
        Refused: there is no next try.
    """
    if answer.status_code in {httpx.codes.TOO_MANY_REQUESTS, httpx.codes.SERVICE_UNAVAILABLE}:
        try:
            return max(float(answer.headers.get("Retry-After", "nan")), 0.0)
        except ValueError:
            return math.nan
    if answer.status_code >= httpx.codes.INTERNAL_SERVER_ERROR:
        return math.nan
    try:
        error = ErrorAnswer.model_validate_json(answer.content).error
    except ValidationError:
        # A proxy between, or no pocketfleet service at all.
        raise Refused(answer.status_code, "unknown", f"{answer.request.url} answers {answer.reason_phrase}") from None
    raise Refused(answer.status_code, error.code, error.message)


def _unreachable(url: str, cause: Exception | None) -> str:
    return (
        f"cannot reach {url}{_found(cause)}. Is pocketfleet serve running there, and is this the URL that it printed? "
        "The device's folder is kept: the same command goes on from it"
    )


def _found(cause: Exception | None) -> str:
    return f": {cause}" if cause is not None and str(cause) else ""


def _checked_url(url: str) -> str:
    wanted = "the URL must be the one that pocketfleet serve prints, such as http://host:8080/v1/populations/boston"
    try:
        found = httpx.URL(url)
    except httpx.InvalidURL as exc:
        raise InputError(f"{wanted}, got {url!r}: {exc}") from exc
    parts = found.path.strip("/").split("/")
    if found.scheme not in {"http", "https"} or not found.host or len(parts) != 3 or parts[:2] != ["v1", "populations"]:
        raise InputError(f"{wanted}, got {url!r}")
    return str(found).rstrip("/")
