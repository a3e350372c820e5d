"""The app's resources: linked by aapt2 into an APK without code, and into ``R``, the class of their numbers.

1. The framework's resources are those of Debian's ``android-framework-res``, API level 29: an attribute that is newer
   is refused here.
2. The source manifest has neither package nor levels, which Gradle wants to tell by itself; they are told here.
"""

import shutil
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Final

from modules import ANDROID_DEMO, BUILD
from packages import PACKAGES, BuildError, ready

__all__ = ["MIN_SDK", "PACKAGE", "TARGET_SDK", "VERSION_NAME", "aapt2", "linked"]

PACKAGE: Final = "org.pocketfleet.demo"
# Android 8.0, whose JobScheduler knows "battery not low".
MIN_SDK: Final = 26
TARGET_SDK: Final = 34
VERSION_NAME: Final = "0.1.0"
_VERSION_CODE: Final = 1
_FRAMEWORK: Final = Path("/usr/share/android-framework-res/framework-res.apk")
_ANDROID: Final = "http://schemas.android.com/apk/res/android"
_MAIN: Final = ANDROID_DEMO / "app" / "src" / "main"


def aapt2() -> Path:
    """The program."""
    return ready(PACKAGES["nativescript-8.9.3"]) / "linux" / "aapt2"


def linked() -> Path:
    """The APK without code; beside it ``java`` holds ``R.java``.

    Raises:
        BuildError: a resource is wrong, or a tool is missing.
    """
    if not _FRAMEWORK.is_file():
        raise BuildError(f"{_FRAMEWORK} is missing: apt-get install android-framework-res")
    folder = BUILD / "resources"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    compiled, manifest, apk = folder / "compiled.zip", folder / "AndroidManifest.xml", folder / "resources.apk"
    _write_manifest(manifest)
    _aapt2("compile", "--dir", _MAIN / "res", "-o", compiled)
    levels = ["--min-sdk-version", str(MIN_SDK), "--target-sdk-version", str(TARGET_SDK)]
    versions = ["--version-code", str(_VERSION_CODE), "--version-name", VERSION_NAME]
    files: list[str | Path] = ["-I", _FRAMEWORK, "--manifest", manifest, "--java", folder / "java", "-o", apk, compiled]
    _aapt2("link", *levels, *versions, *files)
    return apk


def _write_manifest(path: Path) -> None:
    ET.register_namespace("android", _ANDROID)
    tree = ET.parse(_MAIN / "AndroidManifest.xml")
    tree.getroot().set("package", PACKAGE)
    tree.write(path, encoding="utf-8", xml_declaration=True)


def _aapt2(*arguments: str | Path) -> None:
    command = [str(aapt2()), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    told = (done.stdout + done.stderr).strip()
    # Warnings are errors here too.
    if done.returncode != 0 or "warn:" in told:
        raise BuildError(f"aapt2 {arguments[0]} ended with {done.returncode}:\n{told}")
