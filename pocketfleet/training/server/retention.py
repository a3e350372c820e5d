"""Which versions' files are kept, and how the others go; ``Limits.keep_models`` says how many.

Rules:

1. A version's files are kept while it is one of the newest ``keep_models``; while devices are to use it; and while an
   assignment to train from it may be live: until ``deadline_s`` after its successor was made.
2. Any other is hidden first: no device is given its files any more, and no administrator can release it. Its files are
   removed at the next look, so that what is being sent by then is sent whole.
3. A hidden version that is needed after all, because an administrator released it meanwhile, is shown again.
4. A file that a kept version or a program has too stays.

Versions keep their rows: when they were made, of what, and the hash of their weights.
"""

from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any

import sqlalchemy as sa

from pocketfleet.training.server.blob_folder import BlobFolder
from pocketfleet.training.server.database import MODELS
from pocketfleet.training.server.facts import Controls, controls, read_facts
from pocketfleet.training.server.leadership import Leadership
from pocketfleet.training.server.service_plan import ServicePlan

__all__ = ["Retention", "needed_versions"]

_FILES = ("weights_sha256", "download_sha256", "broadcast_sha256", "server_state_sha256")


def needed_versions(
    made_s: Mapping[int, float], *, keep: int, in_use: Set[int], deadline_s: float, now_s: float
) -> set[int]:
    """Rule 1.

    Args:
        made_s: when each version was made, by version.
        keep: so many of the newest, 1 or more.
        in_use: versions that devices are to use.
        deadline_s: after which an assignment is given up.
        now_s: the time now.
    """
    newest = sorted(made_s)[-keep:]
    live = {version for version in made_s if made_s.get(version + 1, now_s) + deadline_s > now_s}
    return {*newest, *live, *(in_use & made_s.keys())}


class Retention:
    """Looks after the files of old versions, in the thread that writes.

    Args:
        plan: of the service.
        leadership: whose transactions write.
        blobs: where the files are.
        programs: hashes of the programs' files.
        in_use: versions that devices are to use, by what administrators decided.
    """

    def __init__(
        self,
        plan: ServicePlan,
        *,
        leadership: Leadership,
        blobs: BlobFolder,
        programs: Set[str],
        in_use: Callable[[Controls], Set[int]],
    ) -> None:
        self._plan = plan
        self._leadership = leadership
        self._blobs = blobs
        self._programs = programs
        self._in_use = in_use

    def look(self, *, now_s: float) -> bool:
        """Hide, show and remove by the rules; returns whether another set of versions is to be had since.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the database did not take it: nothing changed.
            OSError: the disk did not; ask again.
        """
        if not self._plan.limits.keep_models:
            return False
        with self._leadership.begin() as connection:
            rows = connection.execute(sa.select(MODELS)).all()
            there = self._blobs.names()
            needed = needed_versions(
                {row.version: row.made_s for row in rows},
                keep=self._plan.limits.keep_models,
                in_use=self._in_use(controls(read_facts(connection))),
                deadline_s=self._plan.rounds.deadline_s,
                now_s=now_s,
            )
            hidden = [row for row in rows if not row.files_kept]
            again = {row.version for row in hidden if row.version in needed and _files(row) <= there}
            leaving = {row.version for row in rows if row.files_kept and row.version not in needed}
            for versions, kept in ((again, True), (leaving, False)):
                if versions:
                    changed = sa.update(MODELS).where(MODELS.c.version.in_(versions)).values(files_kept=kept)
                    connection.execute(changed)
        # Those that were hidden by an earlier look.
        over = {row.version: row for row in hidden if row.version not in again}
        self._remove(list(over.values()), keep=[row for row in rows if row.version not in over], there=there)
        return bool(again or leaving)

    def _remove(self, over: Sequence[sa.Row[Any]], *, keep: Sequence[sa.Row[Any]], there: Set[str]) -> None:
        needed = frozenset(self._programs).union(*map(_files, keep))
        for sha256 in frozenset[str]().union(*map(_files, over)) & there:
            if sha256 not in needed:
                self._blobs.remove(sha256)


def _files(row: sa.Row[Any]) -> frozenset[str]:
    return frozenset(getattr(row, name) for name in _FILES) - {""}
