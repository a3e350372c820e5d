"""Files of a bundle that are no files (``attacked``)."""

import os
import shutil
from pathlib import Path

import pytest
import torch
from attacked import FILES, Place, outcome, run

pytestmark = pytest.mark.usefixtures("little_memory")


@pytest.mark.parametrize("name", FILES)
def test_a_link_in_place_of_a_file(name: str, place: Place) -> None:
    (place.folder / "there").write_bytes(place.contents[name])
    (place.bundle / name).unlink()
    (place.bundle / name).symlink_to(place.folder / "there")
    assert name in outcome(place)
    (place.folder / "there").unlink()
    assert name in outcome(place)


@pytest.mark.parametrize("name", FILES)
def test_something_else_in_place_of_a_file(name: str, place: Place) -> None:
    for make in (os.mkfifo, Path.mkdir):
        (place.bundle / name).unlink()
        make(place.bundle / name)
        assert name in outcome(place)
        place.restore()


def test_a_link_to_the_bundle_is_the_bundle(place: Place) -> None:
    place.bundle.rename(place.folder / "moved")
    place.bundle.symlink_to(place.folder / "moved")
    try:
        found = run(place.bundle)
    finally:
        shutil.rmtree(place.folder / "moved")
    for runtime, values in place.expected.items():
        assert all(map(torch.equal, found[runtime], values))
    assert "is no bundle" in outcome(place)


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_far_too_large(name: str, place: Place) -> None:
    """As large as it likes to say, and empty: a sparse file takes no disk."""
    with (place.bundle / name).open("r+b") as file:
        file.truncate(2**40)
    assert name in outcome(place)
    if name != "manifest.json":
        manifest = place.manifest()
        manifest["files"][name]["bytes"] = 2**40
        place.write_manifest(manifest)
        assert "is larger than it can be" in outcome(place)
