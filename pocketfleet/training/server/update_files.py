"""Updates that devices brought, a file each until they are in a model.

A file is received under a name of our own, checked, made durable, and then named by its assignment and hash.
"""

import asyncio
import base64
import binascii
import hashlib
import os
import re
import secrets
from collections.abc import AsyncIterable
from pathlib import Path
from typing import BinaryIO

from pocketfleet.training.server.refusal import RefusedError
from pocketfleet.whole_file import sync_path

__all__ = ["Received", "UpdateFiles", "digest_header"]

_DIGEST = re.compile(r"sha-256=:([A-Za-z0-9+/=]{44}):")
_NAME = re.compile(r"(\d+)-[0-9a-f]{64}\.update")


class Received:
    """A body on its way to the disk.

    Args:
        path: of the file, not there yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.bytes = 0
        self._digest = hashlib.sha256()
        self._file: BinaryIO = path.open("xb")

    @property
    def sha256(self) -> str:
        """Of what came so far."""
        return self._digest.hexdigest()

    def write(self, data: bytes) -> None:
        """More of it; the operating system's memory takes it."""
        self._file.write(data)
        self._digest.update(data)
        self.bytes += len(data)

    def sync(self) -> None:
        """Whole and on the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def discard(self) -> None:
        """As if it had never come."""
        self._file.close()
        self.path.unlink(missing_ok=True)


class UpdateFiles:
    """The folder of them.

    Args:
        folder: made where it is not there.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, assignment: int, sha256: str) -> Path:
        """Where the file of an accepted report is."""
        return self._folder / f"{assignment:d}-{sha256}.update"

    async def receive(
        self, body: AsyncIterable[bytes], *, expected_bytes: int, least_bytes_per_s: float, grace_s: float
    ) -> Received:
        """A request's body as a file.

        Args:
            body: in pieces.
            expected_bytes: exactly so many.
            least_bytes_per_s: slower ones are cut off,
            grace_s: after so long.

        Raises:
            RefusedError: it is longer or shorter, or too slow; nothing is kept.
            OSError: the disk does not take it; nothing is kept.
        """
        received = Received(self._folder / f".{secrets.token_hex(8)}.partial")
        try:
            async with asyncio.timeout(grace_s + expected_bytes / least_bytes_per_s):
                await _fill(received, body, expected_bytes)
        except TimeoutError as exc:
            received.discard()
            raise RefusedError(
                408, "too_slow", f"the body came slower than {least_bytes_per_s:g} bytes a second: send it again"
            ) from exc
        except BaseException:
            received.discard()
            raise
        return received

    def keep(self, received: Received, assignment: int) -> Path:
        """Name a file that is whole and durable by its assignment; the name is not durable before ``sync``."""
        path = self.path(assignment, received.sha256)
        received.path.replace(path)
        return path

    def sync(self) -> None:
        """Make the names durable, once for many files."""
        sync_path(self._folder)

    def remove(self, assignment: int, sha256: str) -> None:
        """Forget an update, if it is there."""
        self.path(assignment, sha256).unlink(missing_ok=True)

    def names(self) -> dict[Path, int]:
        """Every file by its assignment."""
        found = {file: _NAME.fullmatch(file.name) for file in self._folder.iterdir()}
        return {file: int(match[1]) for file, match in found.items() if match}

    def clear_partial(self) -> None:
        """Remove what a killed process left unfinished."""
        for file in self._folder.glob(".*.partial"):
            file.unlink(missing_ok=True)


async def _fill(received: Received, body: AsyncIterable[bytes], expected_bytes: int) -> None:
    async for piece in body:
        if received.bytes + len(piece) > expected_bytes:
            raise RefusedError(413, "too_long", f"the body is longer than the {expected_bytes} bytes of a report")
        received.write(piece)
    if received.bytes != expected_bytes:
        raise RefusedError(
            400, "truncated", f"the body ended after {received.bytes} of {expected_bytes} bytes: send it again"
        )


def digest_header(value: str | None) -> str:
    """The SHA-256 in a ``Content-Digest`` (RFC 9530), in hexadecimal digits.

    Raises:
        RefusedError: there is none.
    """
    match = _DIGEST.search(value or "")
    if not match:
        raise RefusedError(
            400, "no_digest", "the header Content-Digest must hold sha-256=:BASE64: of the body (RFC 9530)"
        )
    try:
        return base64.b64decode(match[1], validate=True).hex()
    except binascii.Error as exc:
        raise RefusedError(400, "no_digest", f"the header Content-Digest holds no base64: {exc}") from exc
