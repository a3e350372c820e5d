"""What a native library says of itself: alignment in memory, libraries and symbols that it needs, symbols that it has.

64-bit little-endian ELF, which both of the app's ABIs are. Layouts are those of the System V ABI, chapters 4 and 5
("Object files", "Program loading and dynamic linking").
"""

import struct
from dataclasses import dataclass
from typing import Final

__all__ = ["ElfFile", "read_elf"]

_PT_LOAD: Final = 1
_SHT_DYNAMIC: Final = 6
_SHT_DYNSYM: Final = 11
_DT_NEEDED: Final = 1
_STB_WEAK: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ElfFile:
    """One shared library.

    Attributes:
        alignment: the least of its loaded segments', in bytes.
        needed: libraries that are loaded with it.
        defined: symbols that others may use.
        undefined: symbols that it takes from the libraries; weak ones, which may be missing, are left out.
        data: the file.
    """

    alignment: int
    needed: tuple[str, ...]
    defined: frozenset[str]
    undefined: frozenset[str]
    data: bytes

    def has_text(self, text: str) -> bool:
        """Whether it holds a C string that is exactly ``text``."""
        return b"\0" + text.encode() + b"\0" in self.data

    def has_text_end(self, text: str) -> bool:
        """Whether it holds a C string that ends in ``text``; of a first one, what lies before it is not told apart."""
        return text.encode() + b"\0" in self.data


def read_elf(data: bytes) -> ElfFile:
    """The library of a file's bytes.

    Raises:
        ValueError: it is no 64-bit little-endian ELF file, or has no segments to load.
    """
    if data[:6] != b"\x7fELF\x02\x01":
        raise ValueError("no 64-bit little-endian ELF file")
    program_at, section_at = struct.unpack_from("<QQ", data, 32)
    program_size, programs, section_size, sections = struct.unpack_from("<HHHH", data, 54)
    loaded = []
    for place in range(programs):
        at = program_at + place * program_size
        (kind,) = struct.unpack_from("<I", data, at)
        if kind == _PT_LOAD:
            loaded.append(struct.unpack_from("<Q", data, at + 48)[0])
    if not loaded:
        raise ValueError("the ELF file has nothing to load")
    needed: list[str] = []
    defined: set[str] = set()
    undefined: set[str] = set()
    for place in range(sections):
        _, kind, _, _, at, size, link, _, _, entry = struct.unpack_from(
            "<IIQQQQIIQQ", data, section_at + place * section_size
        )
        if kind not in {_SHT_DYNAMIC, _SHT_DYNSYM}:
            continue
        strings_at = struct.unpack_from("<Q", data, section_at + link * section_size + 24)[0]
        for start in range(at, at + size, entry):
            if kind == _SHT_DYNAMIC:
                tag, value = struct.unpack_from("<qQ", data, start)
                if tag == _DT_NEEDED:
                    needed.append(_text(data, strings_at + value))
            else:
                name, info, _, section = struct.unpack_from("<IBBH", data, start)
                if section:
                    defined.add(_text(data, strings_at + name))
                elif name and info >> 4 != _STB_WEAK:
                    undefined.add(_text(data, strings_at + name))
    return ElfFile(
        alignment=min(loaded),
        needed=tuple(needed),
        defined=frozenset(defined),
        undefined=frozenset(undefined),
        data=data,
    )


def _text(data: bytes, at: int) -> str:
    return data[at : data.index(b"\0", at)].decode()
