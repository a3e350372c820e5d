"""The document says what the service does: requests made of it, good and bad, never meet a failure of ours."""

from collections.abc import Iterator

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.specs.openapi.checks import status_code_conformance
from server_process import ServerProcess, started
from tiny_service import BASE

from pocketfleet.training.server import administration
from pocketfleet.training.server.openapi import openapi_document
from pocketfleet.training.server.routes import ROUTES

# Of each operation, but for those that end the caller's taking part.
EXAMPLES = 40


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with started(tmp_path_factory.mktemp("server")) as one:
        yield one


@pytest.fixture(scope="module")
def credentials(server: ServerProcess) -> dict[str, str]:
    state = server.folder / "state"
    (token,) = administration.issue_tokens(state)
    device = httpx.post(f"{server.url}{BASE}/enrol", json={"token": token}).json()["credential"]
    return {"device": device, "administrator": administration.new_admin_credential(state)}


def test_every_route_is_in_the_document() -> None:
    document = openapi_document("tiny")
    described = {operation["operationId"] for path in document["paths"].values() for operation in path.values()}
    assert described == {route.name for route in ROUTES}
    assert document["openapi"] == "3.1.0"


SCHEMA = schemathesis.openapi.from_dict(openapi_document("tiny"))


@pytest.mark.parametrize(
    "route",
    # The last is a stream that lasts; test_live_figures asks for it.
    [route for route in ROUTES if route.name not in {"leave", "forget", "live_events"}],
    ids=lambda one: one.name,
)
def test_whatever_is_asked_is_answered_as_documented(
    route: object, server: ServerProcess, credentials: dict[str, str]
) -> None:
    operation = SCHEMA.find_operation_by_id(route.name)
    asked = []

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
        database=None,
        derandomize=True,
    )
    @schemathesis_given(operation)
    def ask(case: schemathesis.Case) -> None:
        headers = {"Authorization": f"Bearer {credentials[route.who]}"} if route.who != "anyone" else {}
        answer = case.call(base_url=server.url, headers=headers)
        asked.append(answer.status_code)
        assert answer.status_code < 500, answer.text
        case.validate_response(answer, checks=(status_code_conformance,))
        if answer.status_code >= 400 and route.name not in {"health", "ready"}:
            assert set(answer.json()["error"]) == {"code", "message"}

    ask()
    assert asked


def schemathesis_given(operation: object) -> object:
    from hypothesis import given
    from schemathesis import GenerationMode

    return given(case=operation.as_strategy(generation_mode=GenerationMode.NEGATIVE) | operation.as_strategy())
