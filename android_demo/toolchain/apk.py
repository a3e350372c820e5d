"""Builds the app's APK without an Android SDK: ``build/android/pocketfleet-demo.apk``, aligned, signed and checked.

1. Kotlin and Java are compiled as for the tests, R8's D8 makes dex of them, aapt2 links the resources.
2. It is signed with a key that is made for this build and thrown away: good to try it, not to publish it. A phone
   takes another build of it only after the one before was uninstalled.
3. What ``stubs_check`` and ``apk_check`` find wrong fails the build. The demos' bundles are exported for that, once,
   into ``build/android/bundles``, by ``pocketfleet export``.
"""

import argparse
import os
import re
import secrets
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from apk_check import check_apk
from apk_file import write_apk
from compile import compiled, locked, program
from libraries import DEBIAN_PACKAGES, library
from modules import BUILD, REPOSITORY
from packages import ABIS, PACKAGES, BuildError, ready
from resources import MIN_SDK, linked
from stubs_check import OWN_MODULES, check

__all__ = ["APK", "build"]

APK: Final = BUILD / "pocketfleet-demo.apk"
DEMOS: Final = ("boston", "mnist")
# This clone's command, whatever is installed beside it.
_POCKETFLEET: Final = "from pocketfleet.cli import main; main()"
_HEAP: Final = "-Xmx1g"
_METADATA: Final = re.compile(r"Info: Unexpected error while reading \S+'s kotlin\.Metadata: ")
# Of Debian, beside the JDK.
_TOOLS: Final = ("zipalign", "apksigner", "aapt", "dexdump", "keytool")
_LIBRARIES: Final = ("kotlin-stdlib", "coroutines", "executorch", "fbjni")


def build(bundles: dict[str, Path]) -> Path:
    """Build and check the APK.

    Args:
        bundles: each demo's folder by its name.

    Raises:
        BuildError: a step failed, or the APK is not what it must be.
    """
    for name in _TOOLS:
        if not _is_there(name):
            raise BuildError(f"there is no {name}: apt-get install {' '.join(DEBIAN_PACKAGES)}")
    own = [compiled(name) for name in OWN_MODULES]
    problems = check(platform=compiled("platform"), own=own)
    if problems:
        raise BuildError("Android's published API lacks:\n" + "\n".join(problems))
    resources_apk = linked()
    with tempfile.TemporaryDirectory(dir=BUILD, prefix=".apk-") as folder:
        dexes = _dexed([*own, compiled("resources")], Path(folder))
        unsigned, signed = Path(folder) / "unsigned.apk", Path(folder) / "signed.apk"
        write_apk(unsigned, _parts(resources_apk, dexes))
        _sign(unsigned, signed, Path(folder))
        check_apk(signed, {name: path / "model.pte" for name, path in bundles.items()}, min_sdk=MIN_SDK)
        signed.replace(APK)
    return APK


def _is_there(name: str) -> bool:
    return any((Path(folder) / name).is_file() for folder in os.get_exec_path())


def _dexed(own: Sequence[Path], folder: Path) -> list[Path]:
    """D8's output, in order."""
    dex = folder / "dex"
    dex.mkdir()
    bundletool = ready(PACKAGES["nativescript-8.9.3"]) / "vendor" / "aab-tool" / "bundletool.jar"
    java_home = Path(program("javac")).resolve().parents[1]
    seen = [java_home, compiled("platform"), library("json")]
    command: list[str | Path] = ["java", _HEAP, "-cp", bundletool, "com.android.tools.r8.D8"]
    command += ["--release", "--min-api", str(MIN_SDK), "--output", dex]
    command += [part for path in seen for part in ("--lib", path)]
    told = _quiet([*command, *own, *map(library, _LIBRARIES)], {})
    # It reads metadata of older Kotlin only; it needs none of it here.
    warned = [line for line in told.splitlines() if line.strip() and not _METADATA.match(line)]
    if warned:
        raise BuildError("D8 warns:\n" + "\n".join(warned))
    found = sorted(dex.glob("classes*.dex"), key=lambda path: (len(path.name), path.name))
    if not found:
        raise BuildError("D8 wrote no dex")
    return found


def _parts(resources_apk: Path, dexes: Sequence[Path]) -> dict[str, tuple[bytes, bool]]:
    """Entries in the order in which they lie in the APK, and whether each is stored as it is."""
    parts: dict[str, tuple[bytes, bool]] = {}
    with zipfile.ZipFile(resources_apk) as archive:
        for entry in archive.infolist():
            # Android 11 and later map resources.arsc, and refuse a compressed one.
            stored = entry.compress_type == zipfile.ZIP_STORED or entry.filename == "resources.arsc"
            parts[entry.filename] = (archive.read(entry), stored)
    for path in dexes:
        parts[path.name] = (path.read_bytes(), False)
    executorch = ready(PACKAGES["react-native-executorch-0.9.3"]) / "third-party/android/libs/executorch"
    fbjni = ready(PACKAGES["react-native-0.70.15"]) / "jni"
    for abi in ABIS:
        for path in (executorch / abi / "libexecutorch.so", *sorted((fbjni / abi).glob("*.so"))):
            parts[f"lib/{abi}/{path.name}"] = (path.read_bytes(), True)
    return parts


def _sign(unsigned: Path, signed: Path, folder: Path) -> None:
    """Rule 2; the key is gone with the folder."""
    keys, password = folder / "key.p12", secrets.token_urlsafe(24)
    environment = {"POCKETFLEET_KEY": password}
    made: list[str | Path] = ["keytool", "-genkeypair", "-keystore", keys, "-storetype", "PKCS12"]
    made += [
        "-alias",
        "throw-away",
        "-storepass:env",
        "POCKETFLEET_KEY",
        "-keyalg",
        "RSA",
        "-keysize",
        "2048",
        "-validity",
        "30",
    ]
    made += ["-dname", "CN=throw-away"]
    _quiet(made, environment)
    command: list[str | Path] = ["apksigner", "sign", "--ks", keys, "--ks-pass", "env:POCKETFLEET_KEY"]
    command += ["--min-sdk-version", str(MIN_SDK)]
    command += ["--v1-signing-enabled", "false", "--v2-signing-enabled", "true", "--v3-signing-enabled", "true"]
    _quiet([*command, "--out", signed, unsigned], environment)


def _quiet(command: Sequence[str | Path], environment: dict[str, str]) -> str:
    """Run a program that tells more than one wants to know, and return that; it is in the error too."""
    done = subprocess.run(
        [str(part) for part in command], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise BuildError(f"{command[0]} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def exported(names: Sequence[str] = DEMOS) -> dict[str, Path]:
    """The demos' bundles, exported unless they are there.

    Raises:
        BuildError: one does not export.
    """
    found = {}
    for name in names:
        folder = BUILD / "bundles" / name
        if not (folder / "manifest.json").is_file():
            print(f"exporting {name}", flush=True)
            folder.parent.mkdir(parents=True, exist_ok=True)
            command = [sys.executable, "-c", _POCKETFLEET, "export", name, "--out", str(folder), "--only", "executorch"]
            environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
            done = subprocess.run(command, env=environment, check=False, stdout=subprocess.DEVNULL)
            if done.returncode != 0:
                raise BuildError(f"{' '.join(command)} ended with {done.returncode}")
        found[name] = folder
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Build the APK and print what it is."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--bundle", action="append", type=Path, metavar="FOLDER", help="check this one's operators too")
    given = parser.parse_args(arguments).bundle or []
    try:
        with locked():
            bundles = exported() | {str(folder): folder for folder in given}
            print(build(bundles))
    except BuildError as exc:
        print(f"apk: {exc}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
