"""Each family is exported for both runtimes, in each mode and under each optimizer, and passes the gate.

Four quick ones are run by default, in every mode and under every optimizer; what the others are made of is among the
chains of ``test_layers``.
"""

import math
from pathlib import Path

import pytest
from families import FAMILIES
from families.family import seeded
from families.matrix import CELLS, OPTIMIZERS, SAMPLE, Cell, export
from families.table import kept_rows, row_keys

from pocketfleet.export import Bundle
from pocketfleet.export.manifest import WEIGHTS_FILE
from pocketfleet.export.session import Runtime


def test_the_page_of_models_has_every_family_in_every_mode() -> None:
    # Measured by ``python -m tests.export.families.table``.
    assert list(kept_rows()) == row_keys()


def _marked(cell: Cell) -> object:
    return pytest.param(cell, id=str(cell), marks=() if cell in SAMPLE else pytest.mark.long)


def test_the_sample_covers_modes_and_optimizers() -> None:
    assert {cell.mode for cell in SAMPLE} == {"full", "head", "lora"}
    assert {cell.optimizer for cell in SAMPLE} == set(OPTIMIZERS)
    assert {cell for cell in SAMPLE if cell.mode != "lora"} <= set(CELLS)


@pytest.mark.parametrize("cell", [_marked(cell) for cell in dict.fromkeys([*SAMPLE, *CELLS])])
def test_a_family_exports_and_passes_the_gate(cell: Cell, tmp_path: Path) -> None:
    bundle = export(cell, tmp_path / "bundle")
    assert set(bundle.manifest.footprint) == {"executorch", "onnx"}
    assert _version(bundle) < _most_bytes(bundle)
    if cell.mode != "full":
        assert _version(bundle) < 4 * sum(value.numel() for value in seeded(cell.family.make_model).parameters())


def _most_bytes(bundle: Bundle) -> int:
    """Every value once (4 bytes, a batch counter's 8), and less than 128 bytes a tensor for its name and shape."""
    weights = bundle.weights()
    tensors = [*weights.trainable.values(), *weights.buffers.values()]
    return sum(math.prod(value.shape) * value.element_size() + 128 for value in tensors)


def _arena(bundle: Bundle) -> int:
    return bundle.footprint("executorch").planned_bytes["train_step"]


def _version(bundle: Bundle) -> int:
    return bundle.manifest.files[WEIGHTS_FILE].bytes


def _both(name: str, mode: str, folder: Path) -> tuple[Bundle, Bundle]:
    """A family's bundle in full and in another mode, for ExecuTorch."""
    family = FAMILIES[name]
    full = export(Cell(family, "full", "sgd"), folder / "full", only="executorch")
    return full, export(Cell(family, mode, "sgd"), folder / mode, only="executorch")


@pytest.mark.long
def test_the_head_alone_needs_less_memory_and_smaller_versions(tmp_path: Path) -> None:
    full, head = _both("mobilenet_groupnorm", "head", tmp_path)
    # In full every block's activations wait for the way back. Alone, the head keeps 64 values an example, and the arena
    # is that of the widest layer going forward: the columns of its 3 x 3 windows, 32 channels taken to 8 x 8 in a batch
    # of 4, are 32 * 9 * 8 * 8 * 4 values of 4 bytes, 295 kB; what goes in and out of it is as much again at most.
    assert _arena(head) < 3 * 295_000
    assert _arena(full) > 3 * _arena(head)
    # 9,994 trainable values, of which the head has 64 * 10 + 10; a name of either costs under 128 bytes, so that
    # 39,976 / (2,600 + 2 * 128) = 14 is the least.
    assert _version(full) > 13 * _version(head)


@pytest.mark.long
def test_lora_needs_less_memory_and_smaller_versions(tmp_path: Path) -> None:
    full, lora = _both("char_transformer_untied", "lora", tmp_path)
    # The activations stay, for the way back passes every layer, and here they outweigh the weights: the arena is less,
    # but by no factor.
    assert _arena(full) > _arena(lora)
    # Of rank 4, two layers of 4 * (32 + 96) + 4 * (32 + 32) + 2 * 4 * (32 + 128) values and the head's 4 * (32 + 40):
    # 4,384 of 29,056 values in 18 tensors. 116,224 / (17,536 + 18 * 128) = 5.8.
    assert _version(full) > 5 * _version(lora)


@pytest.mark.parametrize("only", ["onnx", pytest.param(None, marks=pytest.mark.long)])
def test_another_version_changes_the_weights_alone(only: Runtime | None, tmp_path: Path) -> None:
    cell = Cell(FAMILIES["mlp"], "full", "sgd")
    first = export(cell, tmp_path / "first", only=only).manifest.files
    second = export(cell, tmp_path / "second", seed=1, only=only).manifest.files
    assert {name for name in first if first[name] != second[name]} == {WEIGHTS_FILE}
