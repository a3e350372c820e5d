"""What is read out of a shared library, against one that g++ just made."""

import subprocess
from pathlib import Path

import pytest

from elf_file import read_elf

pytestmark = pytest.mark.android

SOURCE = """
extern "C" int elsewhere(int);
extern "C" __attribute__((weak)) int perhaps(int);
int here(int value) { return elsewhere(value) + (perhaps ? perhaps(value) : 0); }
extern "C" const char* name() { return "aten::mm.out"; }
"""


@pytest.mark.parametrize("page_bytes", [4096, 16384])
def test_a_library_tells_its_alignment_and_its_symbols(tmp_path: Path, page_bytes: int) -> None:
    (tmp_path / "one.cpp").write_text(SOURCE)
    command = ["g++", "-shared", "-fPIC", f"-Wl,-z,max-page-size={page_bytes}", "-Wl,-z,common-page-size=4096"]
    command += ["-Wl,--no-as-needed", "-lm", "-o", str(tmp_path / "libone.so"), str(tmp_path / "one.cpp")]
    subprocess.run(command, check=True)
    found = read_elf((tmp_path / "libone.so").read_bytes())
    assert found.alignment == page_bytes
    assert "libm.so.6" in found.needed
    assert {"_Z4herei", "name"} <= found.defined
    assert "elsewhere" in found.undefined
    assert not {"perhaps", "_Z4herei"} & found.undefined
    assert found.has_text("aten::mm.out")
    assert not found.has_text("aten::mm")


def test_what_is_no_library_is_refused() -> None:
    with pytest.raises(ValueError, match="no 64-bit little-endian ELF file"):
        read_elf(b"\x7fELF\x01\x01" + bytes(64))
