"""The parts of the build that npm carries: fetched once into a cache, checked at every use, none of them committed.

1. A package is one version of one name; its tarball's SHA-256 stands in the table below. Another one is refused.
2. Tarballs lie in ``$XDG_CACHE_HOME/pocketfleet/android`` (``~/.cache`` without that variable); what is missing there
   is fetched by ``npm pack``, which runs none of a package's scripts.
3. Of a tarball only what is needed is unpacked, into a folder that appears whole or not at all: two builds at once do
   no harm to each other.

Run as a script it makes all packages ready, or those named, and prints their folders.
"""

import argparse
import fnmatch
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

__all__ = ["ABIS", "PACKAGES", "Archive", "BuildError", "Package", "cache_folder", "ready"]

# The jars that compile, test and package the app; sources and other platforms' libraries stay packed.
_KOTLIN_JARS: Final = (
    "annotations-13.0",
    "kotlin-compiler",
    "kotlin-daemon-client",
    "kotlin-preloader",
    "kotlin-reflect",
    "kotlin-runner",
    "kotlin-script-runtime",
    "kotlin-stdlib",
    "kotlin-test",
    "kotlin-test-junit",
    "kotlinx-coroutines-core-jvm",
)
ABIS: Final = ("arm64-v8a", "x86_64")


class BuildError(Exception):
    """The build cannot go on; the message says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """Files out of an archive that lies in a tarball.

    Attributes:
        path: of the archive in the tarball, then of an archive in that one, and so on.
        files: patterns of the wanted files' paths in the innermost archive.
        jar: the jar to collect them in; empty: they are unpacked as files, by their paths.
    """

    path: tuple[str, ...]
    files: tuple[str, ...]
    jar: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """One tarball of npm's registry.

    Attributes:
        name: as npm calls it.
        version: exactly this one.
        sha256: of the tarball, hexadecimal.
        purpose: what the build takes from it.
        files: patterns of the wanted files' paths in the tarball, its top folder left out.
        archives: whose contents are wanted.
    """

    name: str
    version: str
    sha256: str
    purpose: str
    files: tuple[str, ...] = ()
    archives: tuple[Archive, ...] = ()

    @property
    def tarball(self) -> str:
        """The file name that ``npm pack`` gives it."""
        return f"{self.name}-{self.version}.tgz"


_TABLE: Final = (
    Package(
        name="kotlin-compiler",
        version="2.4.20",
        sha256="c23dab400d7ce5ea8b6c909947c0ca5454189e4bb1108695b5f464500e5e950f",
        purpose="kotlinc, the standard library, coroutines 1.8.0, kotlin-test",
        files=("bin/kotlinc", *(f"lib/{jar}.jar" for jar in _KOTLIN_JARS)),
    ),
    Package(
        name="react-native-executorch",
        version="0.9.3",
        sha256="70a20a865b82f47ac46c82711d93c2038cf99eccbb9b287494219063f2217622",
        purpose="ExecuTorch's Android classes and its native library with training",
        files=(
            "android/libs/classes.jar",
            *(f"third-party/android/libs/executorch/{abi}/libexecutorch.so" for abi in ABIS),
        ),
    ),
    Package(
        name="react-native",
        version="0.61.5",
        sha256="0a21989e15726dd2d30ec49f5fbb1fbbe836ff7018c7f39111528d65ee899d75",
        purpose="the Java classes of fbjni, which ExecuTorch's classes hold their native halves by",
        archives=(
            Archive(
                path=("android/com/facebook/react/react-native/0.61.5/react-native-0.61.5.aar", "classes.jar"),
                files=("com/facebook/jni/*", "com/facebook/proguard/*"),
                jar="fbjni.jar",
            ),
        ),
    ),
    Package(
        name="react-native",
        version="0.70.15",
        sha256="937d2850f71d42ed4341f0229dc132b95f20c52af290a8557a072e07c2c3d310",
        purpose="the native libraries of fbjni and of C++",
        archives=(
            Archive(
                path=("android/com/facebook/react/react-native/0.70.15/react-native-0.70.15-release.aar",),
                files=tuple(f"jni/{abi}/{library}" for abi in ABIS for library in ("libfbjni.so", "libc++_shared.so")),
            ),
        ),
    ),
    Package(
        name="nativescript",
        version="8.9.3",
        sha256="49a19643a1d2889d5aeee1047ef64e995f98887ee789b97397acd42d9951535a",
        purpose="D8 3.3.28 (in bundletool.jar) and aapt2 2.19",
        files=("vendor/aab-tool/bundletool.jar",),
        archives=(Archive(path=("vendor/aab-tool/bundletool.jar",), files=("linux/aapt2",)),),
    ),
)
# By "name-version".
PACKAGES: Final = {f"{package.name}-{package.version}": package for package in _TABLE}


def cache_folder() -> Path:
    """Where tarballs and what is unpacked of them lie."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "pocketfleet" / "android"


def ready(package: Package, *, cache: Path | None = None) -> Path:
    """The folder with what the build needs of ``package``; fetched and unpacked if it is not there yet.

    Args:
        package: of ``PACKAGES``.
        cache: in place of ``cache_folder()``.

    Raises:
        BuildError: the tarball is not the one of the table, cannot be fetched, or lacks a wanted file.
    """
    cache = cache or cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    tarball = _checked_tarball(package, cache)
    # Another selection from the same tarball is another folder.
    wanted = json.dumps(asdict(package), sort_keys=True)
    folder = cache / f"{package.name}-{package.version}-{hashlib.sha256(wanted.encode()).hexdigest()[:16]}"
    if not folder.is_dir():
        _unpack(package, tarball, folder)
    return folder


def _checked_tarball(package: Package, cache: Path) -> Path:
    tarball = cache / package.tarball
    if not tarball.is_file():
        _fetch(package, tarball)
    _check(package, tarball)
    return tarball


def _check(package: Package, tarball: Path) -> None:
    with tarball.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != package.sha256:
        raise BuildError(
            f"{tarball} is not the {package.name} {package.version} of this build: its SHA-256 is {digest}, not "
            f"{package.sha256}; delete it to fetch it again"
        )


def _fetch(package: Package, tarball: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise BuildError(f"{tarball} is missing and there is no npm to fetch it: install Node.js")
    with tempfile.TemporaryDirectory(dir=tarball.parent, prefix=".fetch-") as folder:
        command = [npm, "pack", "--silent", f"{package.name}@{package.version}"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        fetched = Path(folder) / package.tarball
        if done.returncode != 0 or not fetched.is_file():
            raise BuildError(
                f"{' '.join(command)} ended with {done.returncode} and brought no {package.tarball}: "
                f"{done.stderr.strip()[-500:]}"
            )
        _check(package, fetched)
        fetched.replace(tarball)


def _unpack(package: Package, tarball: Path, folder: Path) -> None:
    """Rule 3."""
    partial = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".unpack-"))
    try:
        with tarfile.open(tarball) as tar:
            members = {name.partition("/")[2]: name for name in tar.getnames()}
            for pattern in package.files:
                for name in _matching(pattern, members, where=tarball):
                    data = _member(tar, members[name], where=tarball)
                    _write(partial / name, data)
            for archive in package.archives:
                first, *inner = archive.path
                (name,) = _matching(first, members, where=tarball)
                data = _member(tar, members[name], where=tarball)
                for path in inner:
                    with zipfile.ZipFile(io.BytesIO(data)) as outer:
                        data = outer.read(path)
                _take(archive, data, partial, where=tarball)
        partial.chmod(0o755)
        try:
            partial.rename(folder)
        except OSError:
            # Another build was first; its folder holds the same.
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _matching(pattern: str, names: Sequence[str] | dict[str, str], *, where: Path) -> list[str]:
    found = sorted(fnmatch.filter(names, pattern))
    if not found:
        raise BuildError(f"{where} holds no {pattern}")
    return found


def _member(tar: tarfile.TarFile, name: str, *, where: Path) -> bytes:
    file = tar.extractfile(name)
    if file is None:
        raise BuildError(f"{where}: {name} is no file")
    return file.read()


def _take(archive: Archive, data: bytes, folder: Path, *, where: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(data)) as source:
        names = [name for name in source.namelist() if not name.endswith("/")]
        taken = [name for pattern in archive.files for name in _matching(pattern, names, where=where)]
        if not archive.jar:
            for name in taken:
                _write(folder / name, source.read(name))
            return
        with zipfile.ZipFile(folder / archive.jar, "w", zipfile.ZIP_DEFLATED) as jar:
            for name in taken:
                # Without the date of today: the same bytes whenever it is made.
                jar.writestr(zipfile.ZipInfo(name), source.read(name), zipfile.ZIP_DEFLATED)


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    # Programs among them are started; no other file minds.
    path.chmod(0o755)


def main(arguments: Sequence[str] | None = None) -> int:
    """Make packages ready and print where they are."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME-VERSION", help=f"of {', '.join(PACKAGES)}; all without any")
    chosen = parser.parse_args(arguments).names or list(PACKAGES)
    if unknown := sorted(set(chosen) - set(PACKAGES)):
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(PACKAGES)}")
    try:
        for name in chosen:
            print(f"{ready(PACKAGES[name])}  {PACKAGES[name].purpose}")
    except BuildError as exc:
        print(f"packages: {exc}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
