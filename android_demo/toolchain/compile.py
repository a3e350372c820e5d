"""Jars of the app's modules in ``build/android``, made anew only when something that goes into them has changed.

1. Warnings are errors. The language level is Java 11's, which D8 takes.
2. Beside a jar lies ``<name>.inputs``: the SHA-256 over the sources, the compiler's arguments and the jars that it is
   compiled against. A jar with the same inputs is kept.
3. A module's tests are a jar of their own, which sees what is ``internal`` in the module.

Run as a script it builds all modules that have sources, or those named.
"""

import argparse
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from libraries import TEST_LIBRARIES, kotlin_compiler, library
from modules import BUILD, MODULES, Module, with_dependencies
from packages import BuildError
from resources import linked

__all__ = ["class_path", "compiled", "compiled_tests", "locked", "program", "run"]

_JAVA_RELEASE: Final = "11"
# kotlinc's heap; enough for any module here, and small beside a test's.
_HEAP: Final = "-Xmx1g"


def run(command: Sequence[str | Path], *, what: str, environment: dict[str, str] | None = None) -> None:
    """Run a compiler; what it prints is seen.

    Raises:
        BuildError: its exit status was not 0.
    """
    done = subprocess.run([str(part) for part in command], env={**os.environ, **(environment or {})}, check=False)
    if done.returncode != 0:
        raise BuildError(f"{what} failed: {Path(command[0]).name} ended with {done.returncode}")


def program(name: str) -> str:
    """The path of a program of the JDK or the like.

    Raises:
        BuildError: it is not installed.
    """
    found = shutil.which(name)
    if found is None:
        raise BuildError(f"there is no {name} on the PATH: the build needs JDK 17, Node.js and g++")
    return found


@contextmanager
def locked() -> Iterator[None]:
    """One build at a time in this clone."""
    BUILD.mkdir(parents=True, exist_ok=True)
    with (BUILD / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def class_path(module: Module, *, tests: bool = False) -> list[Path]:
    """What a module is compiled against and runs with, itself left out; its tests' libraries too if ``tests``."""
    names = [*module.libraries, *(TEST_LIBRARIES if tests else ())]
    return [*(compiled(name) for name in module.depends), *map(library, names)]


def compiled(name: str) -> Path:
    """The jar of a module, which is up to date.

    Raises:
        BuildError: it has no sources, or does not compile.
    """
    module = MODULES[name]
    if name == "resources":
        linked()
    return _jar(module.name, module.sources, class_path(module), friend=None)


def compiled_tests(name: str) -> Path:
    """The jar of a module's tests.

    Raises:
        BuildError: there are none, or they do not compile.
    """
    module = MODULES[name]
    if module.tests is None:
        raise BuildError(f"the module {name} has no tests of its own")
    own = compiled(name)
    return _jar(f"{name}-tests", module.tests, [own, *class_path(module, tests=True)], friend=own)


def _jar(name: str, folder: Path, against: Sequence[Path], *, friend: Path | None) -> Path:
    sources = sorted(path for path in folder.rglob("*") if path.suffix in {".kt", ".java"})
    if not sources:
        raise BuildError(f"{name} has no sources: there is no .kt or .java below {folder}")
    if any(path.suffix == ".kt" for path in sources):
        command = _kotlinc(against, friend)
    else:
        command = [program("javac"), "--release", _JAVA_RELEASE, "-Werror", "-Xlint:all,-options"]
        command += ["-cp", _joined(against)] if against else []
    jar, stamp = BUILD / f"{name}.jar", BUILD / f"{name}.inputs"
    inputs = _digest(folder, sources, command, against)
    if jar.is_file() and stamp.is_file() and stamp.read_text() == inputs:
        return jar
    stamp.unlink(missing_ok=True)
    print(f"compiling {name}", flush=True)
    with tempfile.TemporaryDirectory(dir=BUILD, prefix=".classes-") as classes:
        run([*command, "-d", classes, *map(str, sources)], what=name, environment={"JAVA_OPTS": _HEAP})
        _archive(Path(classes), jar)
    stamp.write_text(inputs)
    return jar


def _archive(classes: Path, jar: Path) -> None:
    """Everything below ``classes`` in ``jar``: the same bytes for the same classes, whenever they are made."""
    partial = jar.with_suffix(".partial")
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(classes.rglob("*")):
            if path.is_file():
                name = path.relative_to(classes).as_posix()
                archive.writestr(zipfile.ZipInfo(name), path.read_bytes(), zipfile.ZIP_DEFLATED)
    partial.replace(jar)


def _kotlinc(against: Sequence[Path], friend: Path | None) -> list[str]:
    command = [str(kotlin_compiler()), "-no-stdlib", "-no-reflect", "-jvm-target", _JAVA_RELEASE, "-Werror"]
    command += ["-cp", _joined(against)]
    return command + ([f"-Xfriend-paths={friend}"] if friend else [])


def _joined(jars: Sequence[Path]) -> str:
    return os.pathsep.join(map(str, jars))


def _digest(folder: Path, sources: Sequence[Path], command: Sequence[str], against: Sequence[Path]) -> str:
    """Rule 2."""
    digest = hashlib.sha256("\0".join(command).encode())
    for path in sources:
        digest.update(f"\0{path.relative_to(folder)}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    for jar in against:
        digest.update(hashlib.sha256(jar.read_bytes()).digest())
    return digest.hexdigest()


def _has_sources(name: str) -> bool:
    return all(one.generated or one.sources.is_dir() for one in with_dependencies(name))


def main(arguments: Sequence[str] | None = None) -> int:
    """Build modules."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=f"of {', '.join(MODULES)}; all that have sources")
    chosen = parser.parse_args(arguments).modules
    if unknown := sorted(set(chosen) - set(MODULES)):
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(MODULES)}")
    names = chosen or [name for name, module in MODULES.items() if not module.generated and _has_sources(name)]
    try:
        with locked():
            for name in names:
                print(compiled(name), flush=True)
    except BuildError as exc:
        print(f"compile: {exc}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
