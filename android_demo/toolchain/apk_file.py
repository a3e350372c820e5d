"""An APK as a ZIP file whose stored entries begin where Android can map them.

1. Native libraries begin at multiples of 16 KiB, all else that is stored at multiples of 4 bytes: ``zipalign`` of the
   SDK does so with ``-P 16``, Debian's knows pages of 4 KiB only.
2. How an entry is aligned stands in its extra field 0xD935, as AOSP's apksig writes and reads it: a signer that moves
   entries keeps it.
3. Entries have the date of ZIP's beginning: the same parts are the same file.
"""

import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

__all__ = ["LIBRARY_ALIGNMENT", "misaligned", "write_apk"]

# Pages of Android 15's devices with 16 KiB of them; source.android.com, "16 KB page size".
LIBRARY_ALIGNMENT: Final = 16 * 1024
_ALIGNMENT: Final = 4
_EXTRA_FIELD: Final = 0xD935
# A local header before its name: PKWARE's APPNOTE, 4.3.7.
_HEADER_BYTES: Final = 30
_FIRST_DATE: Final = (1980, 1, 1, 0, 0, 0)


def write_apk(path: Path, parts: dict[str, tuple[bytes, bool]]) -> None:
    """Write ``path``.

    Args:
        path: of the file; one that is there is replaced.
        parts: by entry, its bytes, and whether it is stored as it is.
    """
    with zipfile.ZipFile(path, "w") as archive:
        for name, (data, stored) in parts.items():
            entry = zipfile.ZipInfo(name, _FIRST_DATE)
            entry.compress_type = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
            if stored:
                alignment = _alignment(name)
                begins = archive.start_dir + _HEADER_BYTES + len(entry.filename.encode()) + 6
                entry.extra = struct.pack("<HHH", _EXTRA_FIELD, 2 + -begins % alignment, alignment) + bytes(
                    -begins % alignment
                )
            archive.writestr(entry, data)


def misaligned(path: Path) -> Iterator[str]:
    """A line for each stored entry that begins elsewhere than rule 1 says, and each library that is compressed."""
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        for entry in archive.infolist():
            if entry.compress_type != zipfile.ZIP_STORED:
                if entry.filename.endswith(".so"):
                    yield f"{entry.filename} is compressed: it cannot be mapped"
                continue
            file.seek(entry.header_offset + 26)
            name_bytes, extra_bytes = struct.unpack("<HH", file.read(4))
            begins = entry.header_offset + _HEADER_BYTES + name_bytes + extra_bytes
            if begins % _alignment(entry.filename):
                yield f"{entry.filename} begins at {begins}, which is no multiple of {_alignment(entry.filename)}"


def _alignment(name: str) -> int:
    return LIBRARY_ALIGNMENT if name.endswith(".so") else _ALIGNMENT
