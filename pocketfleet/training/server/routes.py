"""Every route of the service in one table: who may call it, what it takes, what it answers.

The application is made of it, and so are the OpenAPI document and the test that nobody gets what is not theirs.
"""

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel

from pocketfleet.training.server.live_events import LiveEventsQuery
from pocketfleet.training.server.live_figures import LiveDevices, LiveDevicesQuery
from pocketfleet.training.server.protocol import (
    BenchmarkResult,
    CheckIn,
    CheckInAnswer,
    Enrolled,
    Enrolment,
    EvaluationAnswer,
    EvaluationReport,
    ReportAnswer,
    ReportFacts,
    Status,
)

__all__ = ["PREFIX", "ROUTES", "Route"]

PREFIX = "/v1/populations/{population}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A row.

    Attributes:
        name: of the operation.
        method, path: below ``PREFIX`` where the path does not begin at the root.
        who: nobody in particular, a device by its credential, or the administrator by theirs.
        body: a JSON message; ``None``: none, or bytes where ``takes_bytes``.
        query: a message whose fields are the query's.
        answer: a JSON message; ``None``: none, bytes or text.
        status: of success.
        summary: for people.
    """

    name: str
    method: Literal["GET", "POST", "PUT", "DELETE"]
    path: str
    who: Literal["anyone", "device", "administrator"]
    summary: str
    body: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    takes_bytes: bool = False
    answer: type[BaseModel] | None = None
    media_type: str = "application/json"
    status: int = 200


ROUTES = (
    Route(
        name="enrol",
        method="POST",
        path="enrol",
        who="anyone",
        body=Enrolment,
        answer=Enrolled,
        status=201,
        summary="A one-time token becomes a device's own credential.",
    ),
    Route(
        name="check_in",
        method="POST",
        path="check-in",
        who="device",
        body=CheckIn,
        answer=CheckInAnswer,
        summary="A device that is free asks for work.",
    ),
    Route(
        name="file",
        method="GET",
        path="files/{sha256}",
        who="device",
        media_type="application/octet-stream",
        summary="The bytes of this hash, for ever the same; ranges and ETag as in RFC 9110.",
    ),
    Route(
        name="report",
        method="PUT",
        path="reports/{assignment_id}",
        who="device",
        query=ReportFacts,
        takes_bytes=True,
        answer=ReportAnswer,
        summary="What a device learnt; the same again is answered the same.",
    ),
    Route(
        name="evaluation",
        method="PUT",
        path="evaluations/{evaluation_id}",
        who="device",
        body=EvaluationReport,
        answer=EvaluationAnswer,
        summary="How a device finds two versions; the same again is answered the same.",
    ),
    Route(
        name="stage",
        method="POST",
        path="reports/{assignment_id}/stages/{stage}",
        who="device",
        takes_bytes=True,
        status=204,
        summary="A device's message of a stage of a secure sum; the same again is answered the same.",
    ),
    Route(
        name="stage_input",
        method="GET",
        path="reports/{assignment_id}/stages/{stage}",
        who="device",
        media_type="application/octet-stream",
        summary="What a device needs for its message of that stage; 202 and StageWait: it is not there yet.",
    ),
    Route(
        name="status",
        method="GET",
        path="status",
        who="device",
        answer=Status,
        summary="What the service knows of the device.",
    ),
    Route(
        name="benchmark",
        method="POST",
        path="benchmarks",
        who="device",
        body=BenchmarkResult,
        status=204,
        summary="What a step took on the device.",
    ),
    Route(
        name="pause",
        method="POST",
        path="pause",
        who="device",
        status=204,
        summary="The device's user wants a rest: it comes no more until it resumes.",
    ),
    Route(
        name="resume",
        method="POST",
        path="resume",
        who="device",
        status=204,
        summary="The rest is over.",
    ),
    Route(
        name="leave",
        method="POST",
        path="leave",
        who="device",
        status=204,
        summary="The device takes part no more; what it reported stays counted.",
    ),
    Route(
        name="forget",
        method="DELETE",
        path="device",
        who="device",
        status=204,
        summary="Likewise, and nothing is kept that the device said of itself.",
    ),
    Route(
        name="health",
        method="GET",
        path="/healthz",
        who="anyone",
        media_type="text/plain",
        summary="The process serves requests.",
    ),
    Route(
        name="ready",
        method="GET",
        path="/readyz",
        who="anyone",
        media_type="text/plain",
        summary="This process leads: devices may be sent here.",
    ),
    Route(name="openapi", method="GET", path="/openapi.json", who="anyone", summary="This protocol, as OpenAPI 3.1."),
    Route(
        name="metrics",
        method="GET",
        path="/metrics",
        who="administrator",
        media_type="text/plain",
        summary="Counters, as Prometheus reads them.",
    ),
    Route(
        name="page",
        method="GET",
        path="/",
        who="anyone",
        media_type="text/html",
        summary="The live page, without any data; it asks for the administrator's credential.",
    ),
    Route(
        name="live_events",
        method="GET",
        path="/live/events",
        who="administrator",
        query=LiveEventsQuery,
        media_type="text/event-stream",
        summary="LiveFigures about once a second, as server-sent events, for so many seconds; then ask again.",
    ),
    Route(
        name="live_devices",
        method="GET",
        path="/live/devices",
        who="administrator",
        query=LiveDevicesQuery,
        answer=LiveDevices,
        summary="A page of devices that pass a filter.",
    ),
)
