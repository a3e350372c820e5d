"""Files that are there whole or not at all, however the writer ends."""

import os
from pathlib import Path

__all__ = ["sync_path", "write_whole"]


def write_whole(path: Path, content: str | bytes, *, durable: bool = False) -> None:
    """Write a file, text as UTF-8, beside its place and move it there; ``durable``: it survives a loss of power."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    partial.replace(path)
    if durable:
        sync_path(path.parent)


def sync_path(path: Path) -> None:
    """See that a file's bytes, or the names in a folder, survive a loss of power."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
