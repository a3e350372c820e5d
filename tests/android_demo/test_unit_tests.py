"""A module's JUnit run counts for no less than it says."""

import zipfile
from pathlib import Path

import pytest

from unit_tests import ModuleTests, counted, marked_classes

PASSED = "JUnit version 4.13.2\n...\nTime: 1.2\n\nOK (3 tests)\n"
FAILED = "JUnit version 4.13.2\n.E.\nTime: 1.2\n\nFAILURES!!!\nTests run: 2,  Failures: 1\n"
WARNED = "WARNING in native method: JNI call made without checking exceptions\n" + PASSED


@pytest.mark.parametrize(
    ("output", "exit_status", "said"),
    [
        (PASSED, 0, "core: 3 tests in 2 classes, passed"),
        (FAILED, 1, "core: 2 tests in 2 classes, FAILED: 1 failures, exit status 1"),
        # A JVM that died after the last test, and one that never came to the first.
        (PASSED, 134, "core: 3 tests in 2 classes, FAILED: 0 failures, exit status 134"),
        ("", 0, "core: 0 tests in 2 classes, FAILED: 0 failures, exit status 0"),
        (WARNED, 0, "core: 3 tests in 2 classes, FAILED: 1 failures, exit status 0"),
    ],
)
def test_a_run_passes_with_tests_and_without_failures(output: str, exit_status: int, said: str) -> None:
    result = counted("core", 2, output, exit_status)
    assert str(result) == said
    assert result.passed == said.endswith("passed")


def test_no_tests_are_no_success() -> None:
    assert not ModuleTests(module="core", classes=0, tests=0, failures=0, exit_status=0).passed


def test_classes_are_found_by_the_annotation(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "tests.jar", "w") as jar:
        jar.writestr("org/pocketfleet/core/BatchesTest.class", b"\xca\xfe..Lorg/junit/Test;..")
        jar.writestr("org/pocketfleet/core/Oddly.class", b"\xca\xfe..Lorg/junit/Test;..")
        jar.writestr("org/pocketfleet/core/Kit.class", b"\xca\xfe..")
        jar.writestr("META-INF/main.kotlin_module", b"Lorg/junit/Test;")
    assert marked_classes(tmp_path / "tests.jar") == ["org.pocketfleet.core.BatchesTest", "org.pocketfleet.core.Oddly"]
