"""Where entries of an APK begin."""

import shutil
import struct
import subprocess
import zipfile
from pathlib import Path

import pytest

from apk_file import LIBRARY_ALIGNMENT, misaligned, write_apk

pytestmark = pytest.mark.android

PARTS = {
    "AndroidManifest.xml": (b"<manifest/>" * 9, False),
    "resources.arsc": (b"r" * 4321, True),
    "classes.dex": (b"dex" * 999, False),
    "lib/arm64-v8a/libone.so": (b"1" * 20_001, True),
    "lib/x86_64/libtwo.so": (b"2" * 3, True),
}


def test_libraries_begin_at_pages_and_the_rest_at_words(tmp_path: Path) -> None:
    path = tmp_path / "one.apk"
    write_apk(path, PARTS)
    assert list(misaligned(path)) == []
    raw = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == {
            name: data for name, (data, _) in PARTS.items()
        }
        for entry in archive.infolist():
            name_bytes, extra_bytes = struct.unpack_from("<HH", raw, entry.header_offset + 26)
            begins = entry.header_offset + 30 + name_bytes + extra_bytes
            if entry.filename.endswith(".so"):
                assert begins % LIBRARY_ALIGNMENT == 0
                assert raw[begins : begins + entry.file_size] == PARTS[entry.filename][0]


def test_the_same_parts_are_the_same_file(tmp_path: Path) -> None:
    write_apk(tmp_path / "one.apk", PARTS)
    write_apk(tmp_path / "two.apk", PARTS)
    assert (tmp_path / "one.apk").read_bytes() == (tmp_path / "two.apk").read_bytes()


def test_what_is_not_aligned_is_named(tmp_path: Path) -> None:
    path = tmp_path / "plain.apk"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("resources.arsc", b"r" * 7)
        archive.writestr("lib/x86_64/libone.so", b"1" * 7)
        archive.writestr("lib/x86_64/libtwo.so", b"2" * 700, zipfile.ZIP_DEFLATED)
    # 30 bytes of a header and 14 of a name are no multiple of 16 KiB, but one of 4.
    wrong = list(misaligned(path))
    assert len(wrong) == 2
    assert "libone.so begins at" in wrong[0]
    assert "which is no multiple of 16384" in wrong[0]
    assert wrong[1] == "lib/x86_64/libtwo.so is compressed: it cannot be mapped"


@pytest.mark.skipif(shutil.which("zipalign") is None, reason="Debian's zipalign is not installed")
def test_zipalign_agrees(tmp_path: Path) -> None:
    write_apk(tmp_path / "one.apk", PARTS)
    assert subprocess.run(["zipalign", "-c", "-p", "4", str(tmp_path / "one.apk")], check=False).returncode == 0
