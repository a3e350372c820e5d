"""What the finished APK must be; each check prints what it found, and tells what is wrong.

1. Signed by schemes v2 and v3 (``apksigner verify``), its entries aligned (``zipalign -c``, and 16 KiB for libraries).
2. The manifest in it asks for exactly three permissions, and has the activity and both jobs.
3. Its dex holds those classes and ExecuTorch's.
4. A library's segments are aligned to 16 KiB, but for those that are named here as a limit. What it needs is packaged
   or Android's own, every C++ symbol included.
5. Every operator and delegate of each demo's program is in the packaged ``libexecutorch.so``.
"""

import re
import subprocess
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from apk_file import LIBRARY_ALIGNMENT, misaligned
from elf_file import ElfFile, read_elf
from packages import ABIS, BuildError

__all__ = ["check_apk", "program_needs"]

PERMISSIONS: Final = ("INTERNET", "ACCESS_NETWORK_STATE", "POST_NOTIFICATIONS")
CLASSES: Final = (
    "org/pocketfleet/demo/MainActivity",
    "org/pocketfleet/demo/TrainingJob",
    "org/pocketfleet/demo/BenchmarkJob",
    "org/pocketfleet/core/RoundLoop",
    "org/pocketfleet/trainer/ExecutorchTrainer",
    "org/pytorch/executorch/Module",
    "org/pytorch/executorch/training/TrainingModule",
    "com/facebook/jni/HybridData",
    "com/facebook/soloader/nativeloader/NativeLoader",
)
# Libraries of a React Native from before there were pages of 16 KiB: phones with such pages cannot load them.
ALIGNED_TO_4_KIB: Final = frozenset({"libfbjni.so", "libc++_shared.so"})
# The NDK's stable libraries (developer.android.com/ndk/guides/stable_apis), which are in every phone.
_SYSTEM: Final = frozenset({"libc.so", "libm.so", "libdl.so", "liblog.so", "libandroid.so", "libz.so"})
_RUNTIME: Final = "libexecutorch.so"


def check_apk(apk: Path, programs: dict[str, Path], *, min_sdk: int) -> None:
    """All checks.

    Args:
        apk: signed.
        programs: each demo's ``.pte`` by its name.
        min_sdk: the oldest level that it is for.

    Raises:
        BuildError: with a line for everything that is wrong.
    """
    problems = [
        *_signatures(apk, min_sdk),
        *misaligned(apk),
        *_permissions(apk),
        *_components(apk),
        *_classes(apk),
        *_libraries(apk, programs),
    ]
    if problems:
        raise BuildError("the APK is not what it must be:\n" + "\n".join(problems))
    _print_sizes(apk)


def _output(command: Sequence[str | Path]) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BuildError(f"{' '.join(map(str, command))} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def _signatures(apk: Path, min_sdk: int) -> Iterator[str]:
    told = _output(["apksigner", "verify", "--verbose", "--min-sdk-version", str(min_sdk), apk])
    for scheme in ("v2", "v3"):
        if re.search(rf"^Verified using {scheme} scheme .*: true$", told, re.MULTILINE) is None:
            yield f"it is not signed by scheme {scheme}: {told}"
    _output(["zipalign", "-c", "-p", "4", apk])
    print("signatures: v2 and v3 verified; entries aligned, libraries to 16 KiB")


def _permissions(apk: Path) -> Iterator[str]:
    told = _output(["aapt", "dump", "permissions", apk])
    found = sorted(re.findall(r"^uses-permission: name='([^']+)'", told, re.MULTILINE))
    if found != sorted(f"android.permission.{name}" for name in PERMISSIONS):
        yield f"permissions must be exactly {', '.join(PERMISSIONS)}, got {', '.join(found)}"
    print(f"permissions: {', '.join(name.rpartition('.')[2] for name in found)}")


def _components(apk: Path) -> Iterator[str]:
    told = _output(["aapt", "dump", "xmltree", apk, "AndroidManifest.xml"])
    for name in ("MainActivity", "TrainingJob", "BenchmarkJob", "DemoApplication"):
        if f'"org.pocketfleet.demo.{name}"' not in told:
            yield f"the manifest does not name {name}"
    if told.count('"android.permission.BIND_JOB_SERVICE"') < 2:
        yield "others than Android's scheduler may start the jobs"


def _classes(apk: Path) -> Iterator[str]:
    told = _output(["dexdump", apk])
    found = set(re.findall(r"Class descriptor\s*: 'L([^;]+);'", told))
    for name in CLASSES:
        if name not in found:
            yield f"the dex lacks the class {name}"
    print(f"dex: {len(found)} classes, among them {', '.join(name.rpartition('/')[2] for name in CLASSES)}")


def _libraries(apk: Path, programs: dict[str, Path]) -> Iterator[str]:
    needs = {name: program_needs(path) for name, path in programs.items()}
    with zipfile.ZipFile(apk) as archive:
        for abi in ABIS:
            prefix = f"lib/{abi}/"
            libraries = {
                name.removeprefix(prefix): read_elf(archive.read(name))
                for name in archive.namelist()
                if name.startswith(prefix)
            }
            if _RUNTIME not in libraries:
                yield f"{abi}: there is no {_RUNTIME}"
                continue
            for name, library in libraries.items():
                yield from _alignment(abi, name, library)
                yield from _needs(abi, name, library, libraries)
            for task, wanted in needs.items():
                missing = [one for one in wanted if not _is_in(one, libraries[_RUNTIME])]
                yield from (f"{abi}: {task} needs {one}, which {_RUNTIME} lacks" for one in missing)
                there = f"{len(wanted) - len(missing)} of {len(wanted)}"
                print(f"{abi}: {there} operators and delegates of {task} in {_RUNTIME}")


def _is_in(need: str, runtime: ElfFile) -> bool:
    """An operator is registered by its name, such as ``aten::mm.out``; a delegate's lies beside other constants."""
    return runtime.has_text(need) if "::" in need else runtime.has_text_end(need)


def _alignment(abi: str, name: str, library: ElfFile) -> Iterator[str]:
    limit = "" if library.alignment >= LIBRARY_ALIGNMENT else " (LIMIT: not on phones with pages of 16 KiB)"
    print(f"{abi}: {name} is aligned to {library.alignment // 1024} KiB{limit}")
    if bool(limit) != (name in ALIGNED_TO_4_KIB):
        yield f"{abi}: {name} is aligned to {library.alignment} bytes, which the list of limits does not say"


def _needs(abi: str, name: str, library: ElfFile, packaged: dict[str, ElfFile]) -> Iterator[str]:
    for needed in library.needed:
        if needed not in packaged and needed not in _SYSTEM:
            yield f"{abi}: {name} needs {needed}, which is neither packaged nor Android's"
    given = frozenset[str]().union(*(packaged[one].defined for one in library.needed if one in packaged))
    # Android's own libraries have no symbols of C++.
    missing = sorted(symbol for symbol in library.undefined if symbol.startswith("_Z") and symbol not in given)
    if missing:
        yield f"{abi}: {name} needs {len(missing)} symbols that no packaged library has, such as {missing[0]}"


def program_needs(program: Path) -> tuple[str, ...]:
    """Names of the operators, with overloads, and of the delegates that a ``.pte`` file calls, sorted."""
    # Tried with executorch 1.5.1, as pocketfleet.export.executorch, which reads programs so.
    from executorch.exir._serialize._program import deserialize_pte_binary

    found: set[str] = set()
    for plan in deserialize_pte_binary(program.read_bytes()).program.execution_plan:
        found |= {f"{one.name}.{one.overload}" if one.overload else one.name for one in plan.operators}
        found |= {one.id for one in plan.delegates}
    if not found:
        raise BuildError(f"{program} calls no operator: it is no program of a bundle")
    return tuple(sorted(found))


def _print_sizes(apk: Path) -> None:
    with zipfile.ZipFile(apk) as archive:
        entries = archive.infolist()
    libraries = {
        abi: sum(one.compress_size for one in entries if one.filename.startswith(f"lib/{abi}/")) for abi in ABIS
    }
    rest = apk.stat().st_size - sum(libraries.values())
    print(f"size: {apk.stat().st_size / 1e6:.1f} MB with {' and '.join(ABIS)}")
    for abi, size in libraries.items():
        print(f"size: {(rest + size) / 1e6:.1f} MB with {abi} alone, of which {size / 1e6:.1f} MB are native libraries")
