"""Every command and every program in the README and the docs runs, in the order in which a reader would run it.

A command that would export what an earlier one of any page has exported takes that one's bundle; all else runs as it is
written.
"""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from shared_exports import SharedExports

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
FENCE = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
# The first line of a program or an experiment that the reader saves under that name.
SAVED = re.compile(r"# (\w+\.(?:py|toml))\n")
# Set-up and the test command itself, which runs this test: continuous integration runs them.
MAKE_TARGETS = {"demo", "test", "test-all", "test-android", "apk", "bench"}


def blocks(page: Path) -> list[tuple[str, str]]:
    return FENCE.findall(page.read_text())


def environment(folder: Path) -> dict[str, str]:
    """``pocketfleet`` on the path, as after activating the environment."""
    program = folder / "bin" / "pocketfleet"
    program.parent.mkdir()
    # As pip writes it, with the guard that worker processes need.
    program.write_text(
        f"#!{sys.executable}\nfrom pocketfleet.cli import main\nif __name__ == '__main__':\n    main()\n"
    )
    program.chmod(0o755)
    return {
        **os.environ,
        "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> SharedExports:
    """Of all pages."""
    return SharedExports(tmp_path_factory.mktemp("shared"))


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda page: page.name)
def test_a_page_runs_as_written(page: Path, shared: SharedExports, tmp_path_factory: pytest.TempPathFactory) -> None:
    surroundings = environment(tmp_path_factory.mktemp("program"))
    place = tmp_path_factory.mktemp("reader")
    ran = 0
    for language, text in blocks(page):
        if language in {"python", "toml"} and (saved := SAVED.match(text)):
            (place / saved[1]).write_text(text)
            continue
        if language in {"text", "swift", "mermaid"}:
            # For other machines than this one; and a drawing.
            continue
        if language == "python":
            calls = [[sys.executable, "-c", text]]
        elif language == "sh":
            calls = [shlex.split(line, comments=True) for line in text.splitlines() if line.strip()]
        else:
            assert language == "toml", f"{page.name}: a block of {language} that nothing checks"
            continue
        for call in calls:
            if call[0] == "make":
                assert call[1] in MAKE_TARGETS
                assert f"\n{call[1]}:" in (ROOT / "Makefile").read_text()
                continue
            call = shared.told(call, place)
            done = subprocess.run(call, cwd=place, env=surroundings, check=False, capture_output=True, text=True)
            assert done.returncode == 0, f"{page.name}: {shlex.join(call)}\n{done.stderr}"
            shared.keep(call, place)
            ran += 1
    assert ran > 0 or page.name == "CONTRIBUTING.md"


def test_every_link_between_pages_leads_somewhere() -> None:
    links = 0
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} -> {target}"
                links += 1
    assert links > 0
