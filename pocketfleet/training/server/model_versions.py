"""The versions of the model: what each was made of, and how a closed round makes the next one.

Rules:

1. A version is made of the accepted reports of its round and of the version before, in one order: the same bits
   whenever and by whichever process it is made, but for noise that protects devices, which is drawn anew: of what was
   made so, the one whose row was written is all that devices ever get. Until then its round's files stay.
2. Its weights, what is broadcast with them and the server's state are files by hash.
3. A round whose updates would make weights that are no finite numbers teaches nothing: the next version has the weights
   of the last.
4. Under secure aggregation the mean comes of ``secure_rounds``. Without a sum a round teaches nothing either, and a
   round that had closed when this process began to lead has none.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import sqlalchemy as sa
import torch

from pocketfleet.training.codec import round_seed
from pocketfleet.training.privacy.clipping import clip_factors
from pocketfleet.training.round import Float64s
from pocketfleet.training.server.blob_folder import BlobFolder
from pocketfleet.training.server.database import MODELS, PRIVACY, REPORTS, ROUNDS
from pocketfleet.training.server.leadership import Leadership
from pocketfleet.training.server.protocol import FileEntry
from pocketfleet.training.server.secure_rounds import Member, SecureRounds, Summed
from pocketfleet.training.server.service_plan import ServicePlan
from pocketfleet.training.server.update_files import UpdateFiles
from pocketfleet.training.staleness import staleness_discount
from pocketfleet.training.update import Update, tensors_from_bytes, tensors_to_bytes
from pocketfleet.training.update_norm import update_norms
from pocketfleet.training.weights import Tensors, Weights, all_finite, tensors_sha256

__all__ = ["Made", "ModelVersion", "ModelVersions"]

# Before the names of the privacy's state, in the file of the server's.
_PRIVACY = "privacy/"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelVersion:
    """One of them, with its tensors in memory.

    ``download`` is the file that devices get, ``broadcast`` what they get beside it.
    """

    version: int
    weights: Weights
    server_state: Tensors
    privacy_state: Tensors
    model_sha256: str
    download: FileEntry
    broadcast: FileEntry | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A version whose files are on the disk; it is one once ``write`` has written its row."""

    model: ModelVersion
    row: Mapping[str, Any]
    reports: tuple[tuple[int, str], ...]  # assignment and hash of what went into it
    no_sum: str = ""  # why there is nothing new in it, under secure aggregation
    privacy: Mapping[str, Any] | None  # its row of what it gave away


class ModelVersions:
    """The newest version; one thread makes the next, the thread of decisions writes it down.

    Args:
        plan: of the service.
        database: of the service.
        leadership: whose transactions write.
        blobs: where the files are.
        updates: where those of the reports are.
        secure: makes sums that hide their parts, where the plan has them.
    """

    def __init__(
        self,
        plan: ServicePlan,
        *,
        database: sa.Engine,
        leadership: Leadership,
        blobs: BlobFolder,
        updates: UpdateFiles,
        secure: SecureRounds | None = None,
    ) -> None:
        self._plan = plan
        self._database = database
        self._leadership = leadership
        self._blobs = blobs
        self._updates = updates
        self._secure = secure
        self._closed_before = -1  # the round that waited when this process began to lead
        self._newest: ModelVersion | None = None

    @property
    def newest(self) -> ModelVersion:
        """The last that was made."""
        assert self._newest is not None
        return self._newest

    def load(self, *, now_s: float) -> None:
        """Read the newest version back; the first time, write version 0 down."""
        with self._database.connect() as connection:
            row = connection.execute(sa.select(MODELS).order_by(MODELS.c.version.desc()).limit(1)).one_or_none()
        if row is None:
            state = self._plan.algorithm.init(self._plan.weights)
            private = {} if self._plan.privacy is None else self._plan.privacy.mean.init()
            first = self._made(0, self._plan.weights, state, private, round_index=-1, now_s=now_s)
            self.write(first)
            self.adopt(first)
        else:
            self._newest = self._read(row)
        waiting = self._next_round()
        self._closed_before = waiting.round if waiting is not None else -1

    def _read(self, row: sa.Row[Any]) -> ModelVersion:
        tensors = tensors_from_bytes(self._blobs.read(row.weights_sha256))
        state = tensors_from_bytes(self._blobs.read(row.server_state_sha256)) if row.server_state_sha256 else {}
        own = {name: value for name, value in state.items() if not name.startswith(_PRIVACY)}
        first = self._plan.weights
        return ModelVersion(
            version=row.version,
            weights=Weights(
                trainable={name: tensors[name] for name in first.trainable},
                buffers={name: tensors[name] for name in first.buffers},
                frozen=first.frozen,
            ),
            server_state=own,
            privacy_state={name.removeprefix(_PRIVACY): state[name] for name in state if name not in own},
            model_sha256=row.model_sha256,
            download=FileEntry(sha256=row.download_sha256, bytes=row.download_bytes),
            broadcast=(
                FileEntry(sha256=row.broadcast_sha256, bytes=row.broadcast_bytes) if row.broadcast_sha256 else None
            ),
        )

    def behind(self) -> bool:
        """Whether a closed round waits to become a version."""
        return self._next_round() is not None

    def _next_round(self) -> sa.Row[Any] | None:
        query = sa.select(ROUNDS).where(ROUNDS.c.succeeded, ROUNDS.c.model_version == self.newest.version)
        with self._database.connect() as connection:
            return connection.execute(query).one_or_none()

    def make_next(self, *, now_s: float) -> Made | None:
        """Make the version of the oldest closed round that has none; ``None``: there is no such round.

        Raises:
            OSError: a report's file cannot be read, or the disk does not take the version; ask again.
            sqlalchemy.exc.SQLAlchemyError: the database does not answer; likewise.
        """
        closed = self._next_round()
        if closed is None:
            return None
        with self._database.connect() as connection:
            counted = sa.select(REPORTS).where(REPORTS.c.counted_in == closed.round).order_by(REPORTS.c.device)
            reports = connection.execute(counted).all()
        if self._secure is not None:
            return self._made_of_sum(self._secure, closed, reports, now_s=now_s)
        mean, norms = self._mean(reports)
        mean, private = self._private(mean, norms)
        weights, state, sound = self._next(mean, len(reports), closed)
        if not sound:
            private = self.newest.privacy_state
        examples = np.array([row.num_examples for row in reports], dtype=np.float64)
        losses = np.array([row.train_loss for row in reports], dtype=np.float64)
        return self._made(
            self.newest.version + 1,
            weights,
            state,
            private,
            round_index=closed.round,
            now_s=now_s,
            train_loss=float((losses * examples).sum() / examples.sum()),
            num_updates=len(reports) if sound else 0,
            reports=tuple((row.assignment, row.sha256) for row in reports),
            privacy=self._privacy_row(closed),
        )

    def _next(self, mean: Update, num_updates: int, closed: sa.Row[Any]) -> tuple[Weights, Tensors, bool]:
        """The next weights and state, and whether they are finite: those of the last version if not."""
        before = self.newest
        weights, state = self._plan.algorithm.server_update(
            before.weights, mean, before.server_state, participation=num_updates / max(closed.population, 1)
        )
        if all_finite(weights.trainable | weights.buffers) and all_finite(state):
            return weights, state, True
        return before.weights, before.server_state, False

    def _made_of_sum(
        self, secure: SecureRounds, closed: sa.Row[Any], reports: Sequence[sa.Row[Any]], *, now_s: float
    ) -> Made:
        """Rule 4."""
        before = self.newest
        summed = Summed(mean=None, num_updates=0, reason="the server was started anew while the sum was being made")
        if closed.round != self._closed_before:
            keys = [self._updates.path(row.assignment, row.sha256).read_bytes() for row in reports]
            members = [Member(row.assignment, key) for row, key in zip(reports, keys, strict=True)]
            summed = secure.sum(closed.round, before.version, members)
        weights, state, sound = before.weights, before.server_state, False
        if summed.mean is not None:
            weights, state, sound = self._next(summed.mean, summed.num_updates, closed)
        made = self._made(
            before.version + 1,
            weights,
            state,
            before.privacy_state,
            round_index=closed.round,
            now_s=now_s,
            num_updates=summed.num_updates if sound else 0,
            reports=tuple((row.assignment, row.sha256) for row in reports),
            # Also without a sum: what was reported counts, whatever became of it.
            privacy=self._privacy_row(closed),
        )
        return replace(made, no_sum=summed.reason)

    def _private(self, mean: Update, norms: Float64s) -> tuple[Update, Tensors]:
        """The mean with noise on it, and the next round's state."""
        before, privacy = self.newest, self._plan.privacy
        if privacy is None:
            return mean, {}
        # Reports with values that are no finite numbers were refused when they came.
        finite = np.ones(len(norms), np.bool_)
        return privacy.mean.step(
            mean, norms=norms, finite=finite, version=before.version + 1, state=before.privacy_state
        )

    def _privacy_row(self, closed: sa.Row[Any]) -> Mapping[str, Any] | None:
        """What the devices have given away once this round has made its version."""
        privacy = self._plan.privacy
        if privacy is None:
            return None
        counts = (
            sa.select(sa.func.count().label("times"))
            .join_from(REPORTS, ROUNDS, REPORTS.c.counted_in == ROUNDS.c.round)
            .where(ROUNDS.c.succeeded, ROUNDS.c.round <= closed.round)
            .group_by(REPORTS.c.device)
            .subquery()
        )
        with self._database.connect() as connection:
            participations = int(connection.execute(sa.select(sa.func.max(counts.c.times))).scalar_one())
        version = self.newest.version + 1
        epsilon = privacy.accountant.epsilon(rounds=version, participations=participations)
        return {
            "version": version,
            "clip_norm": privacy.mean.norm_of(self.newest.privacy_state),
            "participations": participations,
            "epsilon": epsilon if np.isfinite(epsilon) else None,
        }

    def write(self, made: Made) -> None:
        """Write a version's row: from then on it is the one of its round.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: it is not written; make it anew.
        """
        with self._leadership.begin() as connection:
            connection.execute(sa.insert(MODELS), dict(made.row))
            if made.privacy is not None:
                connection.execute(sa.insert(PRIVACY), dict(made.privacy))

    def adopt(self, made: Made) -> None:
        """Let a version that is written be the newest; its reports' files have done their work."""
        self._newest = made.model
        if not self._plan.limits.keep_updates:
            for assignment, sha256 in made.reports:
                self._updates.remove(assignment, sha256)

    def _mean(self, reports: Sequence[sa.Row[Any]]) -> tuple[Update, Float64s]:
        """The mean of a round's updates, clipped where they have to be, and their norms ``[n]`` before that."""
        privacy = self._plan.privacy
        max_norm = np.inf if privacy is None else privacy.mean.norm_of(self.newest.privacy_state)
        columns = {
            name: np.array([getattr(row, name) for row in reports], dtype=np.int64)
            for name in ("device", "steps", "examples_held", "model_version", "num_examples")
        }
        weight = columns["num_examples"].astype(np.float64)
        if self._plan.algorithm.weighting == "devices" or privacy is not None:
            weight = np.ones(len(reports))
        staleness = self.newest.version - columns["model_version"]
        scale = staleness_discount(staleness, exponent=self._plan.staleness_exponent)
        norms = np.full(len(reports), np.nan)
        total = self._plan.make_aggregator()
        order = self._plan.chunks(
            columns["device"], columns["steps"], columns["examples_held"], columns["model_version"]
        )
        for rows in order:
            part = self._plan.make_aggregator()
            updates, factors = self._stacked([reports[row] for row in rows]), scale[rows]
            if privacy is not None:
                norms[rows] = update_norms(updates.delta)
                factors = factors * clip_factors(norms[rows], max_norm)
            part.add_many(updates, weight=weight[rows], scale=factors)
            total.merge(part)
        return total.result(), norms

    def _stacked(self, reports: Sequence[sa.Row[Any]]) -> Update:
        """The updates of a chunk, each tensor ``[k, ...]``."""
        updates = [
            self._plan.codec.decode(
                self._updates.path(row.assignment, row.sha256).read_bytes(),
                self._plan.report,
                round_seed(self._plan.seed, row.model_version),
            )
            for row in reports
        ]
        groups = [update.groups() for update in updates]
        return Update(
            **{
                group: {name: torch.stack([one[group][name] for one in groups]) for name in tensors}
                for group, tensors in groups[0].items()
            }
        )

    def _made(
        self,
        version: int,
        weights: Weights,
        state: Tensors,
        private: Tensors,
        *,
        round_index: int,
        now_s: float,
        train_loss: float | None = None,
        num_updates: int = 0,
        reports: tuple[tuple[int, str], ...] = (),
        privacy: Mapping[str, Any] | None = None,
    ) -> Made:
        whole = weights.trainable | weights.buffers
        download = self._kept(self._plan.download.encode(weights))
        broadcast = self._file(self._plan.algorithm.broadcast(state))
        kept = self._file(whole)
        kept_state = self._file(state | {_PRIVACY + name: value for name, value in private.items()})
        assert kept is not None
        sha256 = tensors_sha256(whole)
        row: Mapping[str, Any] = {
            "version": version,
            "round": round_index,
            "made_s": now_s,
            "model_sha256": sha256,
            "weights_sha256": kept.sha256,
            "weights_bytes": kept.bytes,
            "download_sha256": download.sha256,
            "download_bytes": download.bytes,
            "broadcast_sha256": broadcast.sha256 if broadcast else "",
            "broadcast_bytes": broadcast.bytes if broadcast else 0,
            "server_state_sha256": kept_state.sha256 if kept_state else "",
            "train_loss": train_loss,
            "num_updates": num_updates,
        }
        model = ModelVersion(
            version=version,
            weights=weights,
            server_state=state,
            privacy_state=private,
            model_sha256=sha256,
            download=download,
            broadcast=broadcast,
        )
        return Made(model=model, row=row, reports=reports, privacy=privacy)

    def _file(self, tensors: Tensors) -> FileEntry | None:
        if not tensors:
            return None
        return self._kept(tensors_to_bytes(tensors))

    def _kept(self, data: bytes) -> FileEntry:
        return FileEntry(sha256=self._blobs.add(data), bytes=len(data))
