"""The files of cases are what Python computes now; the Android app's tests read the same files."""

from collections.abc import Callable
from pathlib import Path

import draw_cases
import manifest_cases
import pytest
import tensor_cases

from pocketfleet.errors import BundleError
from pocketfleet.export.manifest import read_manifest


@pytest.mark.parametrize(
    ("file", "text"),
    [
        (draw_cases.FILE, draw_cases.text),
        (tensor_cases.FILE, tensor_cases.text),
        (manifest_cases.FILE, manifest_cases.text),
    ],
    ids=["draws", "tensors", "manifest"],
)
def test_a_file_of_cases_is_what_python_computes(file: Path, text: Callable[[], str]) -> None:
    # Not compared as a whole by assert, whose report of 100 kB takes minutes to make.
    stored, made = file.read_text(encoding="utf-8").splitlines(), text().splitlines()
    differing = [number for number, (one, other) in enumerate(zip(stored, made, strict=False), 1) if one != other]
    assert len(stored) == len(made)
    assert differing == [], (
        f"lines of {file.name} that Python makes otherwise: run {file.stem}'s script and look at the diff"
    )


def test_a_thousand_permutations_of_many_sizes_and_seeds() -> None:
    rows = draw_cases.cases()["permutation"]
    assert len(rows) == 1_000
    assert sum(seed >= 2**53 for seed, *_ in rows) > 900
    assert {0, 1, 2} < {count for _, _, count, _ in rows}
    assert max(count for _, _, count, _ in rows) > 500


def test_python_reads_the_manifest_that_the_app_reads() -> None:
    manifest = read_manifest(manifest_cases.manifest_text(), where="here")
    assert manifest.footprint["executorch"].training_memory_bytes == 4_308


@pytest.mark.parametrize("lie", manifest_cases.LIES, ids=[lie["name"] for lie in manifest_cases.LIES])
def test_python_refuses_what_the_app_refuses(lie: manifest_cases.Lie) -> None:
    with pytest.raises(BundleError, match=lie["python"]):
        read_manifest(manifest_cases.told(lie), where="here")
