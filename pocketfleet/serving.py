"""From an experiment to its service: the plan that ``training.server`` serves, the state folder, the server."""

import asyncio
import hashlib
import json
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn

from pocketfleet.assembly import Parts, batch_size, given_path, step_terms
from pocketfleet.bundling import make_bundle
from pocketfleet.device_sim.cohort import Cohort, chunks, one_by_one_chunk
from pocketfleet.errors import InputError
from pocketfleet.experiment import Experiment
from pocketfleet.export.bundle import Bundle
from pocketfleet.export.manifest import FROZEN_FILE, MANIFEST_FILE, WEIGHTS_FILE
from pocketfleet.export.staging import clear_stale, staged
from pocketfleet.privacy_parts import privacy_plan, secure_plan, with_noise_found
from pocketfleet.round_parts import release_plan, round_plan
from pocketfleet.serving_file import forget_serving, tell_serving
from pocketfleet.training.privacy.random_bits import secret_bits
from pocketfleet.training.round import Int64s
from pocketfleet.training.selection_by_name import load_selection
from pocketfleet.training.server.app import make_app
from pocketfleet.training.server.http_server import listening_socket, make_server, run
from pocketfleet.training.server.http_server import serve as serve_http
from pocketfleet.training.server.protocol import Rule
from pocketfleet.training.server.routes import PREFIX
from pocketfleet.training.server.service import Service
from pocketfleet.training.server.service_log import ServiceLog
from pocketfleet.training.server.service_plan import Limits, ServicePlan
from pocketfleet.update_parts import aggregator_factory, codec_of, download_of
from pocketfleet.whole_file import write_whole

__all__ = ["serve", "service_plan"]

_EXPERIMENT = "experiment.toml"
# What may change when a service starts again: how long it goes on, what it bears, and how the host computes.
_CHANGEABLE = ("engine", "service")


def service_plan(experiment: Experiment, bundle: Bundle, parts: Parts) -> ServicePlan:
    """What the service of an experiment serves.

    Args:
        experiment: with its ``[service]``.
        bundle: that devices download.
        parts: of the experiment.

    Raises:
        InputError: the experiment has something that no service can do.
    """
    if experiment.rounds.selection != "uniform":
        raise InputError(
            f'rounds.selection "{experiment.rounds.selection}" is of simulations: a service asks those that come; '
            'leave it at "uniform"'
        )
    if experiment.rounds.recording:
        raise InputError("rounds.recording is of simulations: a service takes the devices that come; leave it out")
    if experiment.fleet.attacks:
        raise InputError("fleet.attacks is of simulations: a service takes devices as they are; leave it out")
    experiment = with_noise_found(experiment, parts.traffic.report)
    privacy = experiment.privacy
    if privacy.mechanism != "none" and privacy.accounting == "poisson":
        raise InputError(
            'privacy.accounting "poisson" is of simulations: who comes to a service is no random sample that nobody '
            'knows; leave it at "participations"'
        )
    if privacy.delta >= 1.0 / experiment.service.max_devices:
        raise InputError(
            f"privacy.delta must be below one over service.max_devices, {1.0 / experiment.service.max_devices:.3g}, "
            f"got {privacy.delta:.3g}: lower one of them"
        )
    return ServicePlan(
        population=experiment.service.population,
        fingerprint=_fingerprint(experiment, bundle),
        seed=experiment.seed,
        count=experiment.rounds.count,
        rounds=round_plan(experiment),
        weights=parts.weights,
        algorithm=parts.algorithm,
        algorithm_name=experiment.algorithm.name,
        algorithm_options=experiment.algorithm.arguments(),
        make_aggregator=aggregator_factory(experiment),
        chunks=_chunks,
        staleness_exponent=experiment.rounds.staleness_exponent if experiment.rounds.policy == "buffered" else 0.0,
        codec=codec_of(experiment),
        secure=secure_plan(experiment, parts.traffic.report),
        report=parts.traffic.report,
        download=download_of(experiment, parts.traffic),
        programs={runtime: _files(bundle, runtime) for runtime in bundle.runtimes},
        preferred_program=experiment.fleet.program,
        hyper=step_terms(experiment)[1],
        epochs=0 if experiment.training.steps else experiment.training.epochs,
        steps=experiment.training.steps,
        batch_size=batch_size(experiment, parts.data),
        make_selection=lambda: load_selection(
            experiment.rounds.selection,
            experiment.rounds.selection_options,
            seed=experiment.seed,
            population=experiment.service.max_devices,
            window_s=experiment.rounds.selection_window_s,
            trains=True,
        ),
        partial_work=experiment.rounds.partial_work,
        rule=Rule(**experiment.eligibility.model_dump()),
        release=release_plan(experiment),
        release_metric=experiment.release.metric,
        privacy=privacy_plan(experiment, parts.traffic.report, bits=secret_bits()),
        limits=Limits(**experiment.service.model_dump(exclude={"population"})),
    )


def _fingerprint(experiment: Experiment, bundle: Bundle) -> str:
    """Of the bundle, and of all that must not change between two starts."""
    table = experiment.model_dump(exclude_none=True, exclude=set(_CHANGEABLE))
    table["rounds"].pop("count")
    text = json.dumps(table, sort_keys=True) + (bundle.path / MANIFEST_FILE).read_text()
    return hashlib.sha256(text.encode()).hexdigest()


def _files(bundle: Bundle, runtime: Any) -> dict[str, Path]:  # noqa: ANN401 - a literal of the bundle's own
    """What a device downloads once for a runtime."""
    frozen = [FROZEN_FILE] if FROZEN_FILE in bundle.manifest.files else []
    names = [MANIFEST_FILE, WEIGHTS_FILE, *frozen, *bundle.footprint(runtime).file_bytes]
    return {name: bundle.path / name for name in names}


def _chunks(device: Int64s, steps: Int64s, examples_held: Int64s, model_version: Int64s) -> Iterator[Int64s]:
    """Rows of reports in the order in which a simulation adds devices that train one by one: to the same bits."""
    zeros = np.zeros_like(device)
    cohort = Cohort(
        place=np.arange(len(device)),
        device=device,
        steps=steps,
        batch_seed=zeros,
        first_example=zeros,
        num_present=examples_held,
        model_version=model_version,
        weight=np.ones(len(device)),
        scale=np.ones(len(device)),
        max_norm=np.full(len(device), np.inf),
    )
    for chunk in chunks(cohort, size=one_by_one_chunk(len(cohort))):
        yield chunk.place


def _opened_state(experiment: Experiment, state: Path) -> tuple[Bundle, Parts]:
    """The bundle of a state folder, exported the first time."""
    try:
        state.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise InputError(f"--state {state} cannot be a folder: {exc.strerror}") from exc
    path = state / "bundle"
    known = path.exists()
    parts = Parts.of(experiment, path if known else given_path(experiment))
    if not known:
        clear_stale(path)
        with staged(path) as folder:
            make_bundle(experiment, parts, folder / "bundle")
            (folder / "bundle").rename(path)
    return Bundle.load(path), parts


def serve(
    experiment: Experiment,
    state: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    certificate: Path | None = None,
    key: Path | None = None,
    database_url: str = "",
    ready: Callable[[str], None] | None = None,
    waiting: Callable[[], None] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT; requests under way are answered first.

    Args:
        experiment: what devices train.
        state: the folder of everything that must survive; made where it is not there.
        host: an address of this machine.
        port: 0: a free one.
        certificate: of TLS, with its chain, PEM; ``None``: plain HTTP.
        key: of the certificate.
        database_url: of PostgreSQL; empty: SQLite in the folder.
        ready: if given, told the population's URL once the service leads.
        waiting: if given, called where another process leads, which may be for long.

    Raises:
        InputError: the experiment, the state or the address does not allow it.
    """
    for name, file in (("--tls-cert", certificate), ("--tls-key", key)):
        if file is not None and not file.is_file():
            raise InputError(f"{name} {file} is no file")
    if (certificate is None) != (key is None):
        raise InputError("TLS takes --tls-cert and --tls-key together")
    bundle, parts = _opened_state(experiment, state)
    plan = service_plan(experiment, bundle, parts)
    write_whole(state / _EXPERIMENT, experiment.to_toml())
    service = Service(plan, state, database_url=database_url, log=ServiceLog())
    try:
        listening = listening_socket(host, port)
    except (OSError, OverflowError) as exc:
        raise InputError(f"cannot listen on {host}:{port}: {exc}; choose another --host or --port") from exc
    bound = listening.getsockname()
    scheme = "https" if certificate else "http"
    shown = f"[{bound[0]}]" if ":" in bound[0] else bound[0]
    url = f"{scheme}://{shown}:{bound[1]}{PREFIX.format(population=plan.population)}"
    with ExitStack() as stack:
        stack.callback(listening.close)
        stack.callback(forget_serving, state)
        run(_serve(service, listening, certificate, key, _told(ready, url, state), waiting))


def _told(ready: Callable[[str], None] | None, url: str, state: Path) -> Callable[[], None]:
    def tell() -> None:
        tell_serving(state, url)
        if ready is not None:
            ready(url)

    return tell


async def _serve(
    service: Service,
    listening: socket.socket,
    certificate: Path | None,
    key: Path | None,
    tell: Callable[[], None],
    waiting: Callable[[], None] | None,
) -> None:
    server = make_server(
        make_app(service),
        header_timeout_s=service.plan.limits.header_timeout_s,
        certificate=certificate,
        key=key,
    )
    told = asyncio.create_task(_tell_once(server, service, tell, waiting))
    try:
        await serve_http(server, service, listening)
    finally:
        told.cancel()


async def _tell_once(
    server: uvicorn.Server, service: Service, tell: Callable[[], None], waiting: Callable[[], None] | None
) -> None:
    while not server.started:
        await asyncio.sleep(0.02)
    if not service.leads and waiting is not None:
        waiting()
    while not service.leads:
        await asyncio.sleep(0.02)
    tell()
