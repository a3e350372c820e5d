"""The protocol as an OpenAPI 3.1 document, made of the table of routes and the messages themselves."""

import re
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from pocketfleet.training.server.protocol import PROTOCOL_VERSION, ErrorAnswer, StageWait
from pocketfleet.training.server.routes import PREFIX, ROUTES, Route

__all__ = ["openapi_document"]

_REFERENCE = "#/components/schemas/{model}"
_PATH_SCHEMAS: dict[str, dict[str, Any]] = {
    "sha256": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
    "assignment_id": {"type": "integer", "minimum": 0},
    "evaluation_id": {"type": "integer", "minimum": 0},
    "stage": {"type": "string", "maxLength": 200},
}


def openapi_document(population: str) -> dict[str, Any]:
    """The document for one population's service."""
    models: dict[type[BaseModel], JsonSchemaMode] = {ErrorAnswer: "serialization", StageWait: "serialization"}
    for route in ROUTES:
        models |= {model: "validation" for model in (route.body, route.query) if model is not None}
        models |= {route.answer: "serialization"} if route.answer is not None else {}
    ordered = sorted(models.items(), key=lambda pair: pair[0].__name__)
    _, schemas = models_json_schema(ordered, ref_template=_REFERENCE)
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(_full_path(route, population), {})[route.method.lower()] = _operation(route, schemas["$defs"])
    return {
        "openapi": "3.1.0",
        "info": {"title": "pocketfleet", "version": str(PROTOCOL_VERSION)},
        "paths": paths,
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": {
                "device": {"type": "http", "scheme": "bearer"},
                "administrator": {"type": "http", "scheme": "bearer"},
            },
        },
    }


def _full_path(route: Route, population: str) -> str:
    return route.path if route.path.startswith("/") else f"{PREFIX.format(population=population)}/{route.path}"


def _operation(route: Route, schemas: dict[str, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.summary,
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": _PATH_SCHEMAS[name]}
            for name in re.findall(r"\{(\w+)\}", route.path)
        ],
        "responses": {
            str(route.status): _answer(route),
            "4XX": _content("Refused, and why.", ErrorAnswer),
            "503": _content("Not now: ask again after Retry-After seconds.", ErrorAnswer),
        },
    }
    if route.name == "stage_input":
        operation["responses"]["202"] = _content("Not yet: ask again.", StageWait)
    if route.who != "anyone":
        operation["security"] = [{route.who: []}]
    if route.query is not None:
        schema = schemas[route.query.__name__]
        operation["parameters"] += [
            {"name": name, "in": "query", "required": name in schema.get("required", ()), "schema": field}
            for name, field in schema["properties"].items()
        ]
    if route.name == "report":
        operation["parameters"].append(
            {
                "name": "Content-Digest",
                "in": "header",
                "required": True,
                "description": "sha-256=:BASE64: of the body (RFC 9530).",
                "schema": {"type": "string"},
            }
        )
    if route.body is not None:
        operation["requestBody"] = {"required": True} | _json_content(route.body)
    elif route.takes_bytes:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        }
    return operation


def _answer(route: Route) -> dict[str, Any]:
    if route.answer is not None:
        return _content("Done.", route.answer)
    if route.status == 204:
        return {"description": "Done."}
    return {"description": "Done.", "content": {route.media_type: {"schema": {}}}}


def _content(description: str, model: type[BaseModel]) -> dict[str, Any]:
    return {"description": description} | _json_content(model)


def _json_content(model: type[BaseModel]) -> dict[str, Any]:
    return {"content": {"application/json": {"schema": {"$ref": _REFERENCE.format(model=model.__name__)}}}}
