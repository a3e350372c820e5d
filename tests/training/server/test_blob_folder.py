import hashlib
from pathlib import Path

import pytest

from pocketfleet.training.server.blob_folder import BlobFolder


def test_bytes_come_back_by_their_hash(tmp_path: Path) -> None:
    blobs = BlobFolder(tmp_path / "files")
    sha256 = blobs.add(b"weights")
    assert sha256 == hashlib.sha256(b"weights").hexdigest()
    assert blobs.add(b"weights") == sha256
    assert (blobs.read(sha256), blobs.names()) == (b"weights", {sha256})
    blobs.remove(sha256)
    blobs.remove(sha256)
    assert blobs.names() == set()


def test_an_altered_file_is_not_read(tmp_path: Path) -> None:
    blobs = BlobFolder(tmp_path)
    sha256 = blobs.add(b"weights")
    blobs.path(sha256).write_bytes(b"others!")
    with pytest.raises(ValueError, match="holds other bytes than its name says"):
        blobs.read(sha256)


@pytest.mark.parametrize("name", ["", "../secret", "a" * 63, "A" * 64, "a" * 64 + "\n", "/" * 64])
def test_a_name_that_is_no_hash_is_no_path(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="no SHA-256"):
        BlobFolder(tmp_path).path(name)


def test_what_a_killed_process_left_goes_away(tmp_path: Path) -> None:
    blobs = BlobFolder(tmp_path)
    (tmp_path / ".1234.partial").write_bytes(b"half")
    assert blobs.names() == set()
    blobs.clear_partial()
    assert list(tmp_path.iterdir()) == []
