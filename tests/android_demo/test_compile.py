"""A module's jar is made anew when something that goes into it has changed, and only then."""

from pathlib import Path

import pytest

import compile as build
from modules import MODULES, Module
from packages import BuildError

pytestmark = pytest.mark.android

ONE = "package small; public class One { public int number() { return 1; } }"
TWO = "package larger; public class Two { public int number() { return new small.One().number() + 1; } }"


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two modules, ``larger`` on ``small``, built in a folder of their own."""
    monkeypatch.setattr(build, "BUILD", tmp_path / "build")
    for name, file, text, depends in (("small", "One.java", ONE, ()), ("larger", "Two.java", TWO, ("small",))):
        folder = tmp_path / name
        folder.mkdir()
        (folder / file).write_text(text)
        monkeypatch.setitem(MODULES, name, Module(name=name, sources=folder, depends=depends))
    return tmp_path


def compiled(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What was compiled for the larger module."""
    with build.locked():
        build.compiled("larger")
    return capsys.readouterr().out.splitlines()


def test_what_has_not_changed_is_kept(sources: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compiled(capsys) == ["compiling small", "compiling larger"]
    assert compiled(capsys) == []
    source = sources / "larger" / "Two.java"
    source.write_text(TWO.replace("+ 1", "+ 2"))
    assert compiled(capsys) == ["compiling larger"]
    # What is compiled against another jar may be another jar.
    (sources / "small" / "One.java").write_text(ONE.replace("return 1", "return 7"))
    assert compiled(capsys) == ["compiling small", "compiling larger"]
    (sources / "build" / "small.jar").unlink()
    assert compiled(capsys) == ["compiling small"]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (("return 1;", "return one;"), "an error"),
        # A cast that does nothing, which only a warning tells.
        (("return 1;", "return (int) 1;"), "a warning"),
    ],
)
def test_errors_and_warnings_fail(
    sources: Path, change: tuple[str, str], what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compiled(capsys)
    (sources / "small" / "One.java").write_text(ONE.replace(*change))
    for _ in range(2):
        # And again: what failed is not taken for what was there before.
        with pytest.raises(BuildError, match="small failed: javac ended with 1"):
            compiled(capsys)
    (sources / "small" / "One.java").write_text(ONE)
    assert "compiling small" in compiled(capsys), what


def test_a_module_without_sources_is_refused(sources: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (sources / "small" / "One.java").unlink()
    with pytest.raises(BuildError, match=r"small has no sources: there is no \.kt or \.java below"):
        compiled(capsys)
