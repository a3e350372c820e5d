"""Files named by the SHA-256 of their bytes, each there whole or not at all, and on the disk once it is told to be.

No name that a client gave is ever part of a path.
"""

import hashlib
import os
import re
import secrets
from pathlib import Path

from pocketfleet.whole_file import sync_path

__all__ = ["BlobFolder"]

_SHA256 = re.compile(r"[0-9a-f]{64}")


class BlobFolder:
    """A folder of such files.

    Args:
        path: of the folder, made where it is not there.
    """

    def __init__(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self._path = path

    def path(self, sha256: str) -> Path:
        """Where the file of that hash is or would be.

        Raises:
            ValueError: ``sha256`` is none.
        """
        if not _SHA256.fullmatch(sha256):
            raise ValueError(f"no SHA-256 in lower-case hexadecimal digits: {sha256[:80]!r}")
        return self._path / sha256

    def add(self, data: bytes) -> str:
        """Keep bytes; returns their hash once they are durable.

        Raises:
            OSError: the disk did not take them; nothing is there.
        """
        sha256 = hashlib.sha256(data).hexdigest()
        partial = self._path / f".{secrets.token_hex(8)}.partial"
        try:
            with partial.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(self.path(sha256))
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        sync_path(self._path)
        return sha256

    def read(self, sha256: str) -> bytes:
        """The bytes of that hash.

        Raises:
            OSError: they are not there.
            ValueError: the file holds other bytes, or ``sha256`` is none.
        """
        data = self.path(sha256).read_bytes()
        if hashlib.sha256(data).hexdigest() != sha256:
            raise ValueError(
                f"{self.path(sha256)} holds other bytes than its name says: the disk or somebody altered it"
            )
        return data

    def names(self) -> set[str]:
        """The hashes that are there."""
        return {file.name for file in self._path.iterdir() if _SHA256.fullmatch(file.name)}

    def remove(self, sha256: str) -> None:
        """Forget a file, if it is there."""
        self.path(sha256).unlink(missing_ok=True)

    def clear_partial(self) -> None:
        """Remove what a killed process left unfinished."""
        for file in self._path.glob(".*.partial"):
            file.unlink(missing_ok=True)
