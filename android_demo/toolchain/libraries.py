"""The jars that the app's modules are compiled and tested with, by short name: npm's by ``packages.py``, Debian's."""

import functools
from pathlib import Path
from typing import Final

from packages import PACKAGES, BuildError, ready

__all__ = ["DEBIAN_PACKAGES", "TEST_LIBRARIES", "kotlin_compiler", "library"]

_KOTLIN: Final = "kotlin-compiler-2.4.20"
# Name: package and path of the jar in it.
_FROM_NPM: Final = {
    "kotlin-stdlib": (_KOTLIN, "lib/kotlin-stdlib.jar"),
    "annotations": (_KOTLIN, "lib/annotations-13.0.jar"),
    "coroutines": (_KOTLIN, "lib/kotlinx-coroutines-core-jvm.jar"),
    "kotlin-test": (_KOTLIN, "lib/kotlin-test.jar"),
    "kotlin-test-junit": (_KOTLIN, "lib/kotlin-test-junit.jar"),
    "executorch": ("react-native-executorch-0.9.3", "android/libs/classes.jar"),
    "fbjni": ("react-native-0.61.5", "fbjni.jar"),
}
# Name: Debian's package and where it puts the jar. Android's own org.json, made to run on a JVM.
_FROM_DEBIAN: Final = {
    "json": ("libandroid-json-org-java", Path("/usr/share/java/json-android.jar")),
    "junit": ("junit4", Path("/usr/share/java/junit4.jar")),
    "hamcrest": ("junit4", Path("/usr/share/java/hamcrest-core.jar")),
}
# What ``make test-android`` and ``make apk`` need of Debian.
DEBIAN_PACKAGES: Final = (
    "junit4",
    "libandroid-json-org-java",
    "zipalign",
    "apksigner",
    "aapt",
    "dexdump",
    "android-framework-res",
)
TEST_LIBRARIES: Final = ("kotlin-test", "kotlin-test-junit", "junit", "hamcrest")


# Once in a process: every use of a package reads all of its tarball.
@functools.cache
def library(name: str) -> Path:
    """The jar called ``name``.

    Raises:
        BuildError: it is not there and cannot be had.
    """
    if name in _FROM_NPM:
        package, path = _FROM_NPM[name]
        return ready(PACKAGES[package]) / path
    package, jar = _FROM_DEBIAN[name]
    if not jar.is_file():
        raise BuildError(f"{jar} is missing: apt-get install {package} (all of them: {' '.join(DEBIAN_PACKAGES)})")
    return jar


@functools.cache
def kotlin_compiler() -> Path:
    """The program ``kotlinc``."""
    return ready(PACKAGES[_KOTLIN]) / "bin" / "kotlinc"
