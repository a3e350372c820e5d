"""The commands as functions: what they read, print and leave, and what they refuse before measuring anything."""

import json
from pathlib import Path
from typing import Any

import pytest

from pocketfleet import Bundle
from pocketfleet.bench_cli import bench, merge_bench
from pocketfleet.device_sim import bench as orchestration
from pocketfleet.errors import InputError


@pytest.fixture(scope="module")
def written(boston_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A result on one runtime, and its picture."""
    folder = tmp_path_factory.mktemp("bench")
    bench(
        boston_bundle.path,
        runtime="onnx",
        phones="Pixel 8",
        steps=3,
        seconds=0.0,
        json_file=folder / "out.json",
        plot=folder / "out.png",
        quiet=True,
    )
    return folder / "out.json"


@pytest.fixture
def nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: object, **__: object) -> object:
        raise AssertionError("a benchmark was started")

    monkeypatch.setattr(orchestration, "bench_bundle", run)
    monkeypatch.setattr(orchestration, "bench_suite", run)


def test_a_result_and_a_picture_are_left(written: Path) -> None:
    raw = json.loads(written.read_text())
    assert (raw["kind"], raw["schema_version"]) == ("pocketfleet-bench", 2)
    assert (written.parent / "out.png").read_bytes().startswith(b"\x89PNG")


def test_tables_and_ratios_are_printed(
    written: Path, boston_bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    bench(boston_bundle.path, runtime="onnx", phones="Pixel 8", steps=3, seconds=0.0, baseline=written)
    printed = capsys.readouterr()
    assert "bench: boston, onnx: profile by operator" in printed.err
    for part in ("measured: a training step", "(unaccounted)", "PREDICTED, not measured", "under 1 is better"):
        assert part in " ".join(printed.out.split())


def test_results_are_merged(
    written: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    merge_bench([written, written], json_file=tmp_path / "rows.json")
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert {row["figures"] for row in rows} == {"measured", "predicted"}
    assert "Pixel 8" in capsys.readouterr().out


WRONG: list[tuple[dict[str, Any], str]] = [
    ({}, "bench takes a bundle's folder, or --suite v1"),
    ({"bundle": Path("b"), "suite": "v1"}, "bench takes a bundle's folder, or --suite v1"),
    ({"bundle": Path("b"), "workload": ["mlp"]}, "--workload and --bundles go with --suite"),
    ({"bundle": Path("b"), "runtime": "tflite"}, "--runtime must be executorch or onnx, got 'tflite'"),
    ({"bundle": Path("b"), "phones": "Nokia 3310"}, "there is no phone 'Nokia 3310' in the catalogue"),
    ({"bundle": Path("b"), "sustained": "15"}, "--sustained must be 1s to 24h"),
    ({"bundle": Path("b"), "baseline": Path("none.json")}, r"none\.json cannot be read as JSON"),
    ({"bundle": Path("b"), "plot": Path("out.txt")}, "--plot must name a file ending in"),
    ({"bundle": Path("b"), "json_file": Path("missing/out.json")}, "cannot be written: name a file in a folder"),
]


@pytest.mark.usefixtures("nothing_runs")
@pytest.mark.parametrize(("arguments", "message"), WRONG)
def test_what_is_wrong_is_told_first(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        bench(**arguments)


def test_a_suite_that_there_is_not() -> None:
    with pytest.raises(InputError, match="--suite must be one of v1, got 'v2'"):
        bench(suite="v2", quiet=True)


def test_a_file_of_another_kind_is_not_merged(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(InputError, match=r"other\.json is no result of a benchmark"):
        merge_bench([tmp_path / "other.json"])


def test_help_is_quick_to_ask_for() -> None:
    """Nothing heavy is imported by the module itself."""
    import subprocess
    import sys

    code = "import sys, pocketfleet.bench_cli; print([m for m in ('torch', 'numpy', 'pydantic') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
