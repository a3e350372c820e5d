"""The service as an ASGI application: requests become calls of ``Service``, refusals become answers.

Rules:

1. Who asks is known before a body is read; a body is read no further than its route allows.
2. Every refusal is an ``ErrorAnswer``; what goes wrong otherwise is ours: 500, logged, without its traceback in the
   answer.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route as StarletteRoute

from pocketfleet.training.server.credentials import same_secret
from pocketfleet.training.server.device_register import Device
from pocketfleet.training.server.durable_coordinator import StorageError
from pocketfleet.training.server.live_events import LiveEventsQuery, live_events
from pocketfleet.training.server.live_figures import LiveDevicesQuery
from pocketfleet.training.server.live_page import live_page
from pocketfleet.training.server.openapi import openapi_document
from pocketfleet.training.server.protocol import (
    BenchmarkResult,
    CheckIn,
    Enrolment,
    ErrorAnswer,
    ErrorBody,
    EvaluationReport,
    ReportFacts,
    StageWait,
)
from pocketfleet.training.server.refusal import RefusedError
from pocketfleet.training.server.routes import PREFIX, ROUTES, Route
from pocketfleet.training.server.service import Service
from pocketfleet.training.server.token_buckets import TokenBuckets
from pocketfleet.training.server.update_files import digest_header

__all__ = ["make_app"]

_STORAGE_RETRY_S = 5.0
# Assignments are numbered from 0; SQLite and PostgreSQL hold no larger numbers than that.
_MOST_ASSIGNMENT = 2**63 - 1
Handler = Callable[[Request], Awaitable[Response]]
Message = TypeVar("Message", bound=BaseModel)


def make_app(service: Service) -> Starlette:
    """The application of a service, which somebody else starts and stops."""
    return Application(service).starlette


class Application:
    """The routes of one service."""

    def __init__(self, service: Service) -> None:
        limits = service.plan.limits
        self._service = service
        self._requests = TokenBuckets(per_s=limits.device_requests_per_s, burst=limits.device_burst)
        self._failures = TokenBuckets(per_s=limits.address_failures_per_s, burst=limits.address_burst)
        handlers: dict[str, Handler] = {
            "enrol": self._enrol,
            "check_in": self._check_in,
            "file": self._file,
            "report": self._report,
            "evaluation": self._evaluation,
            "stage": self._stage,
            "stage_input": self._stage_input,
            "status": self._status,
            "benchmark": self._benchmark,
            "pause": self._pause,
            "resume": self._resume,
            "leave": self._leave,
            "forget": self._forget,
            "health": self._health,
            "ready": self._ready,
            "openapi": self._openapi,
            "metrics": self._metrics,
            "page": self._page,
            "live_events": self._live_events,
            "live_devices": self._live_devices,
        }
        prefix = PREFIX.replace("{population}", service.plan.population)
        self.starlette = Starlette(
            routes=[
                StarletteRoute(
                    route.path if route.path.startswith("/") else f"{prefix}/{route.path}",
                    self._guarded(route, handlers[route.name]),
                    methods=[route.method],
                )
                for route in ROUTES
            ],
            exception_handlers={HTTPException: _http_error},
        )

    def _guarded(self, route: Route, handler: Handler) -> Handler:
        async def guarded(request: Request) -> Response:
            began_s = time.perf_counter()
            try:
                self._admit(route, request)
                answer = await handler(request)
            except RefusedError as refusal:
                answer = self._refused(refusal)
            except StorageError as exc:
                answer = self._refused(RefusedError(503, "storage", str(exc), retry_after_s=_STORAGE_RETRY_S))
            except ClientDisconnect:
                # Nobody hears it.
                answer = Response(status_code=400)
            except Exception as exc:  # noqa: BLE001 - rule 2
                self._service.log.write("internal_error", route=route.name, error=type(exc).__name__, why=str(exc))
                answer = self._refused(RefusedError(500, "internal", "the service failed: its log says why"))
            self._service.metrics.seconds.labels(route.name).observe(time.perf_counter() - began_s)
            return answer

        return guarded

    def _admit(self, route: Route, request: Request) -> None:
        """Whether whoever asks may; a device is then in ``request.state``."""
        now_s = time.monotonic()
        address = request.client.host if request.client else ""
        if route.who == "anyone" and route.body is None:
            return
        wait_s = self._failures.empty(address, now_s=now_s)
        if wait_s > 0.0:
            raise RefusedError(
                429, "too_many_failures", "too many wrong secrets from this address", retry_after_s=wait_s
            )
        if route.who == "anyone":
            return
        credential = _bearer(request)
        try:
            if route.who == "administrator":
                self._check_administrator(credential)
                return
            device = self._service.authenticated(credential)
        except RefusedError as refusal:
            if refusal.status == 401:
                self._failures.take(address, now_s=now_s)
            raise
        wait_s = self._requests.take(device.device_id, now_s=now_s)
        if wait_s > 0.0:
            raise RefusedError(429, "too_many_requests", "this device asks too often", retry_after_s=wait_s)
        request.state.device = device

    def _check_administrator(self, credential: str) -> None:
        stored = self._service.admin_sha256
        if not same_secret(credential, stored) or not stored:
            raise RefusedError(401, "wrong_credential", "this needs the administrator's credential")

    def _refused(self, refusal: RefusedError) -> Response:
        self._service.metrics.refusals.labels(refusal.code).inc()
        return _error(refusal)

    async def _enrol(self, request: Request) -> Response:
        message = await self._json(request, Enrolment)
        try:
            return _json(await self._service.enrol(message), status=201)
        except RefusedError as refusal:
            if refusal.status == 401:
                self._failures.take(request.client.host if request.client else "", now_s=time.monotonic())
            raise

    async def _check_in(self, request: Request) -> Response:
        message = await self._json(request, CheckIn)
        return _json(await self._service.check_in(_device(request), message))

    async def _file(self, request: Request) -> Response:
        sha256 = request.path_params["sha256"]
        path = self._service.file(sha256)
        tag = f'"{sha256}"'
        headers = {"ETag": tag, "Cache-Control": "private, max-age=31536000, immutable"}
        if tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return FileResponse(path, media_type="application/octet-stream", headers=headers)

    async def _report(self, request: Request) -> Response:
        assignment = _number(request.path_params["assignment_id"])
        facts = _query(request, ReportFacts)
        length = request.headers.get("content-length")
        if length is None or not length.isdecimal():
            raise RefusedError(411, "no_length", "the header Content-Length must say how many bytes the body has")
        answer = await self._service.report(
            _device(request),
            assignment,
            facts,
            length=int(length),
            sha256=digest_header(request.headers.get("content-digest")),
            body=request.stream(),
        )
        return _json(answer)

    async def _evaluation(self, request: Request) -> Response:
        number = _number(request.path_params["evaluation_id"], what="evaluation")
        message = await self._json(request, EvaluationReport)
        return _json(await self._service.evaluated(_device(request), number, message))

    async def _stage(self, request: Request) -> Response:
        assignment, stage = _number(request.path_params["assignment_id"]), request.path_params["stage"]
        most = await self._service.stage_bytes(_device(request), assignment, stage)
        limits = self._service.plan.limits
        within_s = limits.body_grace_s + most / limits.body_least_bytes_per_s
        body = await self._bytes(request, most=most, within_s=within_s)
        await self._service.take_stage(_device(request), assignment, stage, body)
        return Response(status_code=204)

    async def _stage_input(self, request: Request) -> Response:
        assignment, stage = _number(request.path_params["assignment_id"]), request.path_params["stage"]
        found = await self._service.stage_input(_device(request), assignment, stage)
        if isinstance(found, StageWait):
            return _json(found, status=202)
        return Response(found, media_type="application/octet-stream", headers={"Cache-Control": "no-store"})

    async def _status(self, request: Request) -> Response:
        return _json(await self._service.status(_device(request)))

    async def _benchmark(self, request: Request) -> Response:
        await self._service.benchmark(_device(request), await self._json(request, BenchmarkResult))
        return Response(status_code=204)

    async def _pause(self, request: Request) -> Response:
        await self._service.rest(_device(request), begins=True)
        return Response(status_code=204)

    async def _resume(self, request: Request) -> Response:
        await self._service.rest(_device(request), begins=False)
        return Response(status_code=204)

    async def _leave(self, request: Request) -> Response:
        await self._service.leave(_device(request), forget=False)
        return Response(status_code=204)

    async def _forget(self, request: Request) -> Response:
        await self._service.leave(_device(request), forget=True)
        return Response(status_code=204)

    async def _health(self, request: Request) -> Response:  # noqa: ARG002 - the same for everybody, here and below
        return PlainTextResponse("ok\n")

    async def _ready(self, request: Request) -> Response:  # noqa: ARG002
        return PlainTextResponse("leads\n") if self._service.leads else PlainTextResponse("waits\n", status_code=503)

    async def _openapi(self, request: Request) -> Response:  # noqa: ARG002
        return JSONResponse(openapi_document(self._service.plan.population))

    async def _metrics(self, request: Request) -> Response:  # noqa: ARG002
        return Response(self._service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def _page(self, request: Request) -> Response:  # noqa: ARG002
        content, headers = live_page()
        return Response(content, media_type="text/html", headers=headers)

    async def _live_events(self, request: Request) -> Response:
        query = _query(request, LiveEventsQuery)
        granted = self._service.admin_sha256
        # What refuses them is told before the answer begins.
        await self._service.live_figures()

        def may_go_on() -> bool:
            # A new credential voids this one, a server that is told to stop does not wait for watchers.
            return self._service.admin_sha256 == granted and self._service.leads and not self._is_stopping()

        events = live_events(self._service.live_figures, seconds=query.seconds, may_go_on=may_go_on)
        return StreamingResponse(events, media_type="text/event-stream", headers={"Cache-Control": "no-store"})

    def _is_stopping(self) -> bool:
        is_stopping: Callable[[], bool] = getattr(self.starlette.state, "is_stopping", lambda: False)
        return is_stopping()

    async def _live_devices(self, request: Request) -> Response:
        found = await self._service.live.devices(_query(request, LiveDevicesQuery))
        answer = _json(found)
        answer.headers["Cache-Control"] = "no-store"
        return answer

    async def _bytes(self, request: Request, *, most: int, within_s: float) -> bytes:
        """The body, as long as it has at most so many bytes and comes within so many seconds."""
        data = bytearray()
        try:
            async with asyncio.timeout(within_s):
                async for piece in request.stream():
                    data += piece
                    if len(data) > most:
                        raise RefusedError(413, "too_long", f"a body of this route has at most {most} bytes")
        except TimeoutError as exc:
            raise RefusedError(408, "too_slow", f"the body took longer than {within_s:g} s") from exc
        return bytes(data)

    async def _json(self, request: Request, message: type[Message]) -> Message:
        limits = self._service.plan.limits
        data = await self._bytes(request, most=limits.control_bytes, within_s=limits.body_grace_s)
        try:
            return message.model_validate_json(data)
        except ValidationError as exc:
            raise RefusedError(422, "wrong_message", _problems(exc)) from exc


def _device(request: Request) -> Device:
    device: Device = request.state.device
    return device


def _bearer(request: Request) -> str:
    scheme, _, credential = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not credential.strip():
        raise RefusedError(401, "no_credential", "the header Authorization must be: Bearer CREDENTIAL")
    return credential.strip()


def _number(text: str, *, what: str = "assignment") -> int:
    # Unicode has other digits, which int() would take.
    if not (text.isascii() and text.isdecimal() and int(text) <= _MOST_ASSIGNMENT):
        raise RefusedError(404, "unknown", f"there is no {what} {text[:40]!r}")
    return int(text)


def _query(request: Request, message: type[Message]) -> Message:
    try:
        return message.model_validate_strings(dict(request.query_params))
    except ValidationError as exc:
        raise RefusedError(422, "wrong_query", _problems(exc)) from exc


def _problems(exc: ValidationError) -> str:
    found = [f"{'.'.join(map(str, one['loc'])) or 'the body'}: {one['msg']}" for one in exc.errors(include_input=False)]
    return "; ".join(found[:10])[:1000]


def _json(message: BaseModel, *, status: int = 200) -> Response:
    return Response(message.model_dump_json(), status_code=status, media_type="application/json")


def _error(refusal: RefusedError) -> Response:
    body = ErrorAnswer(error=ErrorBody(code=refusal.code, message=refusal.message))
    headers = {}
    if refusal.retry_after_s is not None:
        # Whole seconds (RFC 9110, section 10.2.3), so that the time has come then.
        headers["Retry-After"] = str(max(1, int(-(-refusal.retry_after_s // 1))))
    if refusal.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return Response(body.model_dump_json(), status_code=refusal.status, media_type="application/json", headers=headers)


async def _http_error(_request: Request, exc: Exception) -> Response:
    """What the router refuses by itself: no such path, no such method."""
    assert isinstance(exc, HTTPException)
    codes = {404: "no_route", 405: "no_method"}
    answer = _error(RefusedError(exc.status_code, codes.get(exc.status_code, "refused"), exc.detail))
    for name, value in (exc.headers or {}).items():
        answer.headers[name] = value
    return answer
