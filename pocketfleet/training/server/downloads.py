"""What devices may download: the bundle's programs, and the files of the versions that are kept."""

from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from pocketfleet.training.server.blob_folder import BlobFolder
from pocketfleet.training.server.database import MODELS
from pocketfleet.training.server.model_versions import ModelVersion
from pocketfleet.training.server.protocol import FileEntry, ReleasedModel
from pocketfleet.training.server.refusal import RefusedError
from pocketfleet.training.server.service_plan import ServicePlan

__all__ = ["Download", "Downloads"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Download:
    """What a device gets of a version."""

    weights: FileEntry
    broadcast: FileEntry | None


class Downloads:
    """All of them; one thread changes them, any may ask.

    Args:
        plan: whose programs are kept as files by hash too.
        database: of the service.
        blobs: where the files are.
    """

    def __init__(self, plan: ServicePlan, *, database: sa.Engine, blobs: BlobFolder) -> None:
        self._database = database
        self._blobs = blobs
        self._versions: dict[int, Download] = {}
        self._files: dict[str, Path] = {}
        self.programs: dict[str, dict[str, FileEntry]] = {}
        self._program_files: dict[str, Path] = {}
        for program, files in plan.programs.items():
            self.programs[program] = {name: self._kept(path.read_bytes()) for name, path in files.items()}

    def _kept(self, data: bytes) -> FileEntry:
        sha256 = self._blobs.add(data)
        self._program_files[sha256] = self._blobs.path(sha256)
        return FileEntry(sha256=sha256, bytes=len(data))

    @property
    def program_hashes(self) -> frozenset[str]:
        """Of the programs' files, which stay whatever becomes of versions."""
        return frozenset(self._program_files)

    def read(self) -> None:
        """Find out anew which versions' files are kept."""
        with self._database.connect() as connection:
            rows = connection.execute(sa.select(MODELS).where(MODELS.c.files_kept)).all()
        there = self._blobs.names()
        self._versions = {
            row.version: Download(
                weights=FileEntry(sha256=row.download_sha256, bytes=row.download_bytes),
                broadcast=(
                    FileEntry(sha256=row.broadcast_sha256, bytes=row.broadcast_bytes) if row.broadcast_sha256 else None
                ),
            )
            for row in rows
            if row.download_sha256 in there
        }
        hashes = {row.download_sha256 for row in rows} | {row.broadcast_sha256 for row in rows}
        self._files = {sha256: self._blobs.path(sha256) for sha256 in hashes & there}

    def add(self, model: ModelVersion) -> None:
        """A version's files are there."""
        self._versions[model.version] = Download(weights=model.download, broadcast=model.broadcast)
        entries = [model.download, *([model.broadcast] if model.broadcast else [])]
        self._files |= {entry.sha256: self._blobs.path(entry.sha256) for entry in entries}

    def __contains__(self, version: int) -> bool:
        return version in self._versions

    def of(self, version: int) -> Download:
        """A version that is kept."""
        return self._versions[version]

    def model(self, version: int) -> ReleasedModel:
        """Likewise, as devices are told of it."""
        return ReleasedModel(version=version, weights=self._versions[version].weights)

    def path(self, sha256: str) -> Path:
        """Where the bytes of that hash are.

        Raises:
            RefusedError: no file that a device may get has it.
        """
        path = self._program_files.get(sha256) or self._files.get(sha256)
        if path is None:
            raise RefusedError(404, "no_file", "there is no file of this hash, or no more")
        return path
