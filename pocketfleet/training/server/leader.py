"""What the process that leads has in hand, all of it read back from the database and the disk."""

from collections.abc import Callable
from dataclasses import dataclass

import sqlalchemy as sa

from pocketfleet.training.coordinator_by_plan import make_coordinator, restore_coordinator
from pocketfleet.training.release_gate import Change
from pocketfleet.training.selection import Selection
from pocketfleet.training.server.blob_folder import BlobFolder
from pocketfleet.training.server.database import REPORTS
from pocketfleet.training.server.device_register import DeviceRegister
from pocketfleet.training.server.downloads import Downloads
from pocketfleet.training.server.durable_coordinator import DurableCoordinator
from pocketfleet.training.server.facts import Controls, check_same, controls, read_facts, write_fact
from pocketfleet.training.server.leadership import Leadership
from pocketfleet.training.server.model_versions import ModelVersions
from pocketfleet.training.server.releases import Releases
from pocketfleet.training.server.retention import Retention
from pocketfleet.training.server.secure_rounds import SecureRounds
from pocketfleet.training.server.service_plan import ServicePlan
from pocketfleet.training.server.update_files import UpdateFiles
from pocketfleet.training.server.wall_clock import WallClock, wall_s

__all__ = ["Leader", "read_back"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Leader:
    """The parts; ``controls`` are those at its beginning."""

    clock: WallClock
    register: DeviceRegister
    coordinator: DurableCoordinator
    versions: ModelVersions
    retention: Retention
    releases: Releases
    controls: Controls


def read_back(
    plan: ServicePlan,
    *,
    database: sa.Engine,
    leadership: Leadership,
    blobs: BlobFolder,
    updates: UpdateFiles,
    secure: SecureRounds | None,
    downloads: Downloads,
    told: Callable[[Change], None],
) -> Leader:
    """Everything as it was, by the process that leads.

    Args:
        plan: what is served.
        database: of the service.
        leadership: held.
        blobs: where models are.
        updates: where reports are; those that were never counted go.
        secure: makes sums that hide their parts, where the plan has them.
        downloads: told which versions there are.
        told: hears what becomes of versions on trial.

    Raises:
        InputError: the state is another experiment's.
        StorageError: the database does not give back its decisions.
        sqlalchemy.exc.SQLAlchemyError: it does not answer.
        OSError: the disk does not.
    """
    facts = _facts(plan, leadership)
    decided = controls(facts)
    register = DeviceRegister(database, leadership, most=plan.limits.max_devices)
    register.load()
    coordinator = DurableCoordinator(
        database,
        leadership,
        make=lambda: make_coordinator(plan.rounds, population=plan.limits.max_devices, selection=_selection(plan)),
        restore=lambda state: restore_coordinator(plan.rounds, state, selection=_selection(plan)),
        population=lambda: register.enrolled,
    )
    clock = WallClock(epoch_s=float(facts["epoch_s"]), least_s=coordinator.time_s)
    versions = ModelVersions(
        plan, database=database, leadership=leadership, blobs=blobs, updates=updates, secure=secure
    )
    versions.load(now_s=clock.now_s())
    blobs.clear_partial()
    updates.clear_partial()
    _clear_uncounted(database, updates)
    releases = Releases(plan.release, database=database, leadership=leadership, told=told)
    releases.load(newest=versions.newest.version, chosen=decided.released, now_s=clock.now_s())
    retention = Retention(
        plan,
        leadership=leadership,
        blobs=blobs,
        programs=downloads.program_hashes,
        # Also what was decided since the gate heard of it.
        in_use=lambda now: {now.released, *releases.versions_in_use()},
    )
    # Nothing is being sent and nothing made: what is to go is hidden, and removed.
    for _ in range(2):
        retention.look(now_s=clock.now_s())
    downloads.read()
    return Leader(
        clock=clock,
        register=register,
        coordinator=coordinator,
        versions=versions,
        retention=retention,
        releases=releases,
        controls=decided,
    )


def _facts(plan: ServicePlan, leadership: Leadership) -> dict[str, str]:
    """What there is one of; written the first time."""
    with leadership.begin() as connection:
        facts = read_facts(connection)
        expected = {"population": plan.population, "fingerprint": plan.fingerprint}
        check_same(facts, expected, where="the service's state")
        for name, value in {**expected, "epoch_s": repr(wall_s())}.items():
            if name not in facts:
                write_fact(connection, name, value)
        return read_facts(connection)


def _selection(plan: ServicePlan) -> Selection | None:
    return plan.make_selection() if plan.make_selection is not None else None


def _clear_uncounted(database: sa.Engine, updates: UpdateFiles) -> None:
    """Remove files whose reports were never counted: their devices were not told so, and send them again."""
    with database.connect() as connection:
        counted = set(connection.execute(sa.select(REPORTS.c.assignment)).scalars())
    for file, assignment in updates.names().items():
        if assignment not in counted:
            file.unlink(missing_ok=True)
