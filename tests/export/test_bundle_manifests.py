"""Manifests that no export writes (``attacked``)."""

import copy as copying
import math
from collections.abc import Callable
from typing import Any

import pytest
from attacked import (
    EXAMPLES,
    Manifest,
    Place,
    outcome,
    repeat,
)
from hypothesis import strategies as st

pytestmark = pytest.mark.usefixtures("little_memory")


VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 2**31, 2**63, 10**30, -(10**30), 10**4000),
    *(0.5, -1e300, math.nan, math.inf, -math.inf),
    *(
        "",
        "../x",
        "../secret",
        "/etc/passwd",
        "a/b",
        "..",
        "C:\\x",
        "a\0b",
        "\ud800",
        "ünïcödé ☃",
        "batch",
        "x" * 100_000,
    ),
    *([], {}, [0] * 100_000, ["batch", "batch"], {"../x": {"bytes": 1, "sha256": "0" * 64}}),
)


@st.composite
def edits(draw: st.DrawFn, within: tuple[str, ...] = ()) -> Callable[[Manifest], None]:
    """One change somewhere in a manifest, or in the part of it at the path ``within``."""
    turns = draw(st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=7))
    kind = draw(st.sampled_from(["replace", "delete", "rename", "add", "twice", "swap", "number"]))
    value, other = draw(st.sampled_from(VALUES)), draw(st.floats(0, 1, exclude_max=True))

    def edit(manifest: Manifest) -> None:
        inside: Any = manifest
        for step in within:
            inside = inside[step]
        parent, key = inside, None
        for turn in turns:
            entries = list(inside) if isinstance(inside, dict) else range(len(inside))
            if not entries:
                break
            parent, key = inside, entries[int(turn * len(entries))]
            inside = parent[key]
            if not isinstance(inside, dict | list):
                break
        if key is None:
            return
        entries = list(parent) if isinstance(parent, dict) else list(range(len(parent)))
        second = entries[int(other * len(entries))]
        if kind == "replace":
            parent[key] = copying.deepcopy(value)
        elif kind == "delete":
            del parent[key]
        elif kind == "rename" and isinstance(parent, dict):
            parent[value if isinstance(value, str) else str(key) + "_"] = parent.pop(key)
        elif kind == "add" and isinstance(inside, dict):
            inside["extra" if not isinstance(value, str) else value] = 0
        elif kind == "twice" and isinstance(parent, list):
            parent.insert(second, parent[key])
        elif kind == "swap":
            parent[key], parent[second] = parent[second], parent[key]
        elif kind == "number" and isinstance(parent[key], int) and not isinstance(parent[key], bool):
            parent[key] += 1

    return edit


@pytest.mark.parametrize("examples", EXAMPLES)
@pytest.mark.parametrize("within", [(), ("signature",), ("signature", "train_step", "inputs"), ("files",)])
def test_an_edited_manifest(examples: int, within: tuple[str, ...], place: Place) -> None:
    outcomes: list[str] = []

    def check(edit: Callable[[Manifest], None]) -> None:
        manifest = place.manifest()
        edit(manifest)
        place.write_manifest(manifest)
        message = outcome(place)
        # Sizes, names, types and order: nothing of a signature and of the files can be another.
        assert message != "works" or not within or manifest == place.manifest()
        outcomes.append(message)

    repeat(examples, edits(within), check)
    assert any(message != "works" for message in outcomes)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000 + "]" * 100_000,
        '{"a":' * 100_000 + "1" + "}" * 100_000,
        '{"schema_version": 2, "schema_version": 1}',
        "null",
        "[]",
        "1e999999",
        "9" * 100_000,
        "\ufeff{}",
    ],
    ids=["lists", "objects", "twice", "null", "list", "exponent", "digits", "mark"],
)
def test_a_manifest_that_is_none(text: str, place: Place) -> None:
    (place.bundle / "manifest.json").write_text(text)
    assert "manifest.json" in outcome(place)


def test_deep_options_are_refused_or_harmless(place: Place) -> None:
    deep = place.contents["manifest.json"].replace(
        b'"options":{}', b'"options":{"a":' + b"[" * 5000 + b"]" * 5000 + b"}"
    )
    assert deep != place.contents["manifest.json"]
    (place.bundle / "manifest.json").write_bytes(deep)
    assert "manifest.json" in outcome(place)
