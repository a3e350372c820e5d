"""What a compiled class declares, and what it refers to in others: JVMS 17, chapter 4, as far as checks need it."""

import struct
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["ClassFile", "Member", "Reference", "classes_of", "parameters", "read_class"]

_PUBLIC: Final = 0x0001
_PROTECTED: Final = 0x0004
_STATIC: Final = 0x0008
_SYNTHETIC: Final = 0x1000

# Table 4.4-A: tags of the constant pool whose entries are a fixed number of bytes, and that number.
_FIXED: Final = {
    3: 4,
    4: 4,
    5: 8,
    6: 8,
    7: 2,
    8: 2,
    9: 4,
    10: 4,
    11: 4,
    12: 4,
    15: 3,
    16: 2,
    17: 4,
    18: 4,
    19: 2,
    20: 2,
}
_UTF8, _LONG, _DOUBLE, _CLASS, _NAME_AND_TYPE = 1, 5, 6, 7, 12
_REFERENCES: Final = {9: "field", 10: "method", 11: "method"}


@dataclass(frozen=True, slots=True)
class Member:
    """A field or method; ``descriptor`` is the JVM's, such as ``(ILjava/lang/String;)V``."""

    name: str
    descriptor: str
    access: int

    @property
    def is_visible(self) -> bool:
        """Whether other packages' classes see it."""
        return bool(self.access & (_PUBLIC | _PROTECTED)) and not self.access & _SYNTHETIC

    @property
    def is_static(self) -> bool:
        """Whether it belongs to the class."""
        return bool(self.access & _STATIC)


@dataclass(frozen=True, slots=True, order=True)
class Reference:
    """A member of another class that a class uses; ``owner`` with slashes, as in the file."""

    owner: str
    name: str
    descriptor: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassFile:
    """One class; names with slashes, nested ones behind ``$``."""

    name: str
    superclass: str
    fields: tuple[Member, ...]
    methods: tuple[Member, ...]
    references: tuple[Reference, ...]


def classes_of(jar: Path) -> Iterator[ClassFile]:
    """The classes of a jar, in order of their names."""
    with zipfile.ZipFile(jar) as archive:
        for name in sorted(archive.namelist()):
            if name.endswith(".class") and not name.startswith("META-INF/"):
                yield read_class(archive.read(name))


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self.at = 0

    def take(self, form: str) -> int:
        (value,) = struct.unpack_from(f">{form}", self._data, self.at)
        self.at += struct.calcsize(f">{form}")
        return int(value)

    def raw(self, size: int) -> bytes:
        self.at += size
        return self._data[self.at - size : self.at]


def read_class(data: bytes) -> ClassFile:
    """One class from its file's bytes.

    Raises:
        ValueError: it is no class file.
    """
    reader = _Reader(data)
    if reader.take("I") != 0xCAFEBABE:
        raise ValueError("no class file: it does not begin with 0xCAFEBABE")
    reader.take("I")
    pool = _pool(reader)

    def text(index: int) -> str:
        value = pool[index][1]
        # Modified UTF-8, which differs only for NUL and beyond the basic plane.
        return value.decode("utf-8", errors="surrogatepass")

    def pair(index: int) -> tuple[int, int]:
        first, second = struct.unpack(">HH", pool[index][1])
        return first, second

    def class_name(index: int) -> str:
        return text(struct.unpack(">H", pool[index][1])[0]) if index else ""

    reader.take("H")
    name, superclass = class_name(reader.take("H")), class_name(reader.take("H"))
    for _ in range(reader.take("H")):
        reader.take("H")
    members = [_members(reader, text) for _ in range(2)]
    references = set()
    for tag, value in pool.values():
        if tag in _REFERENCES:
            owner, member = struct.unpack(">HH", value)
            member_name, descriptor = pair(member)
            references.add(Reference(class_name(owner), text(member_name), text(descriptor)))
    return ClassFile(
        name=name,
        superclass=superclass,
        fields=members[0],
        methods=members[1],
        references=tuple(sorted(one for one in references if one.owner != name)),
    )


def _pool(reader: _Reader) -> dict[int, tuple[int, bytes]]:
    pool: dict[int, tuple[int, bytes]] = {}
    count, index = reader.take("H"), 1
    while index < count:
        tag = reader.take("B")
        pool[index] = (tag, reader.raw(reader.take("H") if tag == _UTF8 else _FIXED[tag]))
        # The two of eight bytes take two places.
        index += 2 if tag in {_LONG, _DOUBLE} else 1
    return pool


def _members(reader: _Reader, text: Callable[[int], str]) -> tuple[Member, ...]:
    members = []
    for _ in range(reader.take("H")):
        access, name, descriptor = (reader.take("H") for _ in range(3))
        for _ in range(reader.take("H")):
            reader.take("H")
            reader.raw(reader.take("I"))
        members.append(Member(text(name), text(descriptor), access))
    return tuple(members)


def parameters(descriptor: str) -> tuple[tuple[str, ...], str]:
    """A method's descriptor taken apart: those of its parameters, and that of what it returns."""
    inside, _, returned = descriptor[1:].partition(")")
    found, at = [], 0
    while at < len(inside):
        end = at
        while inside[end] == "[":
            end += 1
        end = inside.index(";", end) + 1 if inside[end] == "L" else end + 1
        found.append(inside[at:end])
        at = end
    return tuple(found), returned
