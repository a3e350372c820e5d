"""``python tiny_server.py FOLDER PORT [URL [PATIENCE_S [CERTIFICATE KEY]]]``: the tiny service in its own process."""

import dataclasses
import sys
from pathlib import Path

from tiny_service import tiny_plan

from pocketfleet.training.round import RoundPlan
from pocketfleet.training.server.app import make_app
from pocketfleet.training.server.http_server import listening_socket, make_server, run
from pocketfleet.training.server.http_server import serve as serve_http
from pocketfleet.training.server.service import Service
from pocketfleet.training.server.service_log import ServiceLog
from pocketfleet.training.server.service_plan import Limits

LIMITS = Limits(
    device_requests_per_s=0.0,
    address_failures_per_s=0.0,
    longest_retry_s=0.05,
    keep_updates=True,
)
# Six devices, of which four make a version: some are late.
ROUNDS = RoundPlan(cohort=4, over_selection=1.5, minimum_ratio=0.5, deadline_s=3.0)


async def serve(folder: Path, port: int, database_url: str, patience_s: float, tls: list[Path]) -> None:
    limits = dataclasses.replace(LIMITS, header_timeout_s=patience_s, body_grace_s=2.0 * patience_s)
    plan = dataclasses.replace(tiny_plan(folder / "plan", limits=limits), rounds=ROUNDS, count=100_000)
    service = Service(plan, folder / "state", database_url=database_url, log=ServiceLog())
    certificate, key = tls or (None, None)
    server = make_server(make_app(service), header_timeout_s=patience_s, certificate=certificate, key=key)
    await serve_http(server, service, listening_socket("127.0.0.1", port))


if __name__ == "__main__":
    url = sys.argv[3] if len(sys.argv) > 3 else ""
    patience_s = float(sys.argv[4]) if len(sys.argv) > 4 else 20.0
    run(serve(Path(sys.argv[1]), int(sys.argv[2]), url, patience_s, [Path(name) for name in sys.argv[5:]]))
