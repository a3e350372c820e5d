"""JUnit over the app's modules on this machine's JVM, the trainer's with the real ExecuTorch runtime.

    python android_demo/toolchain/unit_tests.py [--module core]

1. Every class in a module's test jar that has a method with JUnit's ``@Test`` is run. A module without any fails.
2. What a test needs of the outside it finds by system properties: ``pocketfleet.repository``, the clone, and
   ``pocketfleet.bundles``, the folder that ``references.py`` makes.
3. The exit status is 0 if and only if every test of every module passed.
"""

import argparse
import re
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from compile import class_path, compiled, compiled_tests, locked, program
from host_runtime import host_libraries
from modules import MODULES, REPOSITORY
from packages import BuildError
from references import references

__all__ = ["ModuleTests", "counted", "marked_classes", "run_tests"]

_TESTED: Final = tuple(name for name, module in MODULES.items() if module.tests is not None)
# Whose tests load ExecuTorch's classes, and their native halves with them.
_ON_THE_RUNTIME: Final = frozenset({"trainer", "app"})
# The bridge's use of JNI is watched. The heap is all there from the start: resident memory that grows is native.
_JVM: Final = ("-Xcheck:jni", "-Xms512m", "-Xmx512m", "-XX:+AlwaysPreTouch")
# How a class file names the annotation of a test method; kotlin.test's is the same one.
_TEST_ANNOTATION: Final = b"Lorg/junit/Test;"
# JUnit's last line, of a run without and with failures.
_PASSED: Final = re.compile(r"^OK \((\d+) tests?\)$", re.MULTILINE)
_MISUSED: Final = re.compile(r"^(WARNING|FATAL ERROR) in native method.*$", re.MULTILINE)
_FAILED: Final = re.compile(r"^Tests run: (\d+),  Failures: (\d+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleTests:
    """How a module's tests went."""

    module: str
    classes: int
    tests: int
    failures: int
    exit_status: int

    @property
    def passed(self) -> bool:
        """Whether there were tests, and none failed."""
        return self.tests > 0 and self.failures == 0 and self.exit_status == 0

    def __str__(self) -> str:
        said = "passed" if self.passed else f"FAILED: {self.failures} failures, exit status {self.exit_status}"
        return f"{self.module}: {self.tests} tests in {self.classes} classes, {said}"


def run_tests(name: str) -> ModuleTests:
    """Build a module and its tests, and run them.

    Raises:
        BuildError: something does not compile, or is missing.
    """
    with locked():
        module = MODULES[name]
        tests = compiled_tests(name)
        jars = [tests, compiled(name), *class_path(module, tests=True)]
        properties = {"pocketfleet.repository": str(REPOSITORY)}
        if name in _ON_THE_RUNTIME:
            properties["java.library.path"] = str(host_libraries())
            properties["pocketfleet.bundles"] = str(references())
    classes = marked_classes(tests)
    if not classes:
        return ModuleTests(module=name, classes=0, tests=0, failures=0, exit_status=0)
    command = [program("java"), *_JVM, *(f"-D{key}={value}" for key, value in properties.items())]
    command += ["-cp", ":".join(map(str, jars)), "org.junit.runner.JUnitCore", *classes]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    print(done.stdout, flush=True)
    return counted(name, len(classes), done.stdout, done.returncode)


def marked_classes(jar: Path) -> list[str]:
    """The classes of a jar that have tests: rule 1."""
    with zipfile.ZipFile(jar) as archive:
        names = [name for name in archive.namelist() if name.endswith(".class")]
        marked = [name for name in names if _TEST_ANNOTATION in archive.read(name)]
    return sorted(name.removesuffix(".class").replace("/", ".") for name in marked)


def counted(module: str, classes: int, output: str, exit_status: int) -> ModuleTests:
    """What JUnit printed, in numbers."""
    passed, failed = _PASSED.search(output), _FAILED.search(output)
    tests = int(passed[1]) if passed else int(failed[1]) if failed else 0
    # What the JVM has to say against our bridge fails too.
    failures = (int(failed[2]) if failed else 0) + len(_MISUSED.findall(output))
    return ModuleTests(module=module, classes=classes, tests=tests, failures=failures, exit_status=exit_status)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the JUnit tests of all modules that have any, or of some."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--module", action="append", choices=_TESTED, help="this one alone; may be repeated")
    names = parser.parse_args(arguments).module or _TESTED
    results = []
    for name in names:
        try:
            results.append(run_tests(name))
        except BuildError as exc:
            print(f"{name}: {exc}", file=sys.stderr)
            results.append(ModuleTests(module=name, classes=0, tests=0, failures=0, exit_status=1))
    print("\n".join(map(str, results)))
    return 0 if all(result.passed for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
