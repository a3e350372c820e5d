"""A new model version: the same programs, other weights."""

import shutil
from pathlib import Path

from pocketfleet.errors import InputError
from pocketfleet.export.bundle import Bundle
from pocketfleet.export.manifest import FROZEN_FILE, MANIFEST_FILE, WEIGHTS_FILE, FileEntry, file_sha256
from pocketfleet.training.update import tensors_to_bytes
from pocketfleet.training.weights import Weights

__all__ = ["check_same_tensors", "with_weights"]


def with_weights(bundle: Bundle, weights: Weights, *, out: Path) -> Bundle:
    """Copy a bundle with other weights in it; no program changes, so none is gated again.

    Args:
        bundle: stays as it is.
        weights: of the same names, shapes and types.
        out: the new folder; it must not exist.

    Raises:
        InputError: the weights are not those of the bundle's programs, or ``out`` exists.
    """
    check_same_tensors(bundle, weights)
    if out.exists():
        raise InputError(f"{out} exists; choose another name")
    partial = out.with_name(f".{out.name}.partial")
    if partial.exists():
        shutil.rmtree(partial)
    shutil.copytree(bundle.path, partial)
    (partial / WEIGHTS_FILE).write_bytes(tensors_to_bytes(weights.trainable | weights.buffers))
    if weights.frozen:
        (partial / FROZEN_FILE).write_bytes(tensors_to_bytes(weights.frozen))
    files = {
        name: FileEntry(bytes=(partial / name).stat().st_size, sha256=file_sha256(partial / name))
        for name in bundle.manifest.files
    }
    manifest = bundle.manifest.model_copy(update={"files": files})
    (partial / MANIFEST_FILE).write_text(manifest.model_dump_json(), encoding="utf-8")
    partial.rename(out)
    return Bundle.load(out)


def check_same_tensors(bundle: Bundle, weights: Weights) -> None:
    """Raise ``InputError`` unless the weights' names, shapes and types are those of the bundle's programs."""
    own = bundle.weights()
    for group in ("trainable", "buffers", "frozen"):
        wanted = {name: (value.shape, value.dtype) for name, value in getattr(own, group).items()}
        given = {name: (value.shape, value.dtype) for name, value in getattr(weights, group).items()}
        if wanted != given:
            raise InputError(
                f"the bundle in {bundle.path} was exported from task {bundle.task.path!r} with options "
                f"{bundle.task.options}, whose {group} weights are others"
            )
