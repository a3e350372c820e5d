"""The native libraries that put the ``executorch`` wheel's runtime under ExecuTorch's Java classes on a desktop's JVM.

They have the names of the phone's, since the same Java classes load them: ``libexecutorch.so`` (our bridge, see
``trainer/src/host/cpp``) and ``libfbjni.so``. The wheel's library is called ``libexecutorch.so`` too; ours has another
name inside, by which the linker tells them apart.

Tried with executorch 1.5.1, whose headers need the two definitions below.
"""

import hashlib
import importlib.util
from importlib.metadata import version
from pathlib import Path
from typing import Final

from compile import program, run
from modules import ANDROID_DEMO, BUILD
from packages import BuildError

__all__ = ["host_libraries"]

_SOURCES: Final = ANDROID_DEMO / "trainer" / "src" / "host" / "cpp"
# File to be made: its sources.
_LIBRARIES: Final = {
    "libfbjni.so": ("hybrid_data.cpp",),
    "libexecutorch.so": ("java.cpp", "values.cpp", "runtime.cpp", "module.cpp", "training.cpp"),
}
_LINKED: Final = ("executorch", "executorch_kernels_optimized", "executorch_backend_xnnpack", "executorch_threadpool")


def host_libraries() -> Path:
    """The folder of the two libraries, which are up to date: a JVM's ``java.library.path``.

    Raises:
        BuildError: a compiler or the wheel is missing, or the sources do not compile.
    """
    folder = BUILD / "host"
    folder.mkdir(parents=True, exist_ok=True)
    sources = sorted(_SOURCES.glob("*.cpp")) + sorted(_SOURCES.glob("*.h"))
    for name, own in _LIBRARIES.items():
        library, command = folder / name, _command(name, [_SOURCES / source for source in own])
        # Another version of the wheel lies in the same place.
        digest = hashlib.sha256("\0".join([version("executorch"), *command]).encode())
        for source in sources:
            digest.update(source.read_bytes())
        stamp = library.with_suffix(".inputs")
        if library.is_file() and stamp.is_file() and stamp.read_text() == digest.hexdigest():
            continue
        stamp.unlink(missing_ok=True)
        print(f"compiling host/{name}", flush=True)
        partial = library.with_suffix(".partial")
        run([*command, "-o", partial], what=name)
        partial.replace(library)
        stamp.write_text(digest.hexdigest())
    return folder


def _command(name: str, sources: list[Path]) -> list[str]:
    """The compiler's call without its output."""
    java = _java_home() / "include"
    command = [program("g++"), "-std=c++20", "-O2", "-fPIC", "-shared", "-Wall", "-Wextra", "-Werror"]
    # What others wrote is not ours to warn about.
    command += ["-isystem", str(java), "-isystem", str(java / "linux")]
    command += [f"-Wl,-soname,pocketfleet-{name}", *map(str, sources)]
    if name == "libfbjni.so":
        return command
    wheel = _wheel()
    include, library = wheel / "include", wheel / "lib"
    command += ["-DC10_USING_CUSTOM_GENERATED_MACROS", "-DET_USE_THREADPOOL"]
    command += ["-isystem", str(include)]
    command += ["-isystem", str(include / "executorch" / "runtime" / "core" / "portable_type" / "c10")]
    # Kernels register themselves: their libraries are needed though nothing here names them.
    command += [f"-L{library}", f"-Wl,-rpath,{library}", "-Wl,--no-as-needed", *(f"-l{one}" for one in _LINKED)]
    return command


def _java_home() -> Path:
    home = Path(program("javac")).resolve().parents[1]
    if not (home / "include" / "jni.h").is_file():
        raise BuildError(f"{home} holds no include/jni.h: install a JDK, version 17 (Debian: openjdk-17-jdk-headless)")
    return home


def _wheel() -> Path:
    spec = importlib.util.find_spec("executorch")
    places = list(spec.submodule_search_locations or []) if spec else []
    if not places or not (Path(places[0]) / "lib" / "libexecutorch.so").is_file():
        raise BuildError("this Python has no executorch with its libraries: use that of .venv, which make test makes")
    return Path(places[0])
