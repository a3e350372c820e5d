"""The folder ``snippets/`` inside a bundle: for the app's author, not in the manifest, not for the phone."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from pocketfleet.export.bundle import Bundle
from pocketfleet.export.session import Runtime
from pocketfleet.export.snippets.inputs import StepInputs
from pocketfleet.export.snippets.kotlin import KOTLIN_TYPES, kotlin
from pocketfleet.export.snippets.node import NODE_TYPES, node
from pocketfleet.export.snippets.python import EXECUTORCH_TYPES, ONNX_TYPES, python_executorch, python_onnx
from pocketfleet.export.snippets.swift import SWIFT_TYPES, swift
from pocketfleet.export.snippets.template import described

__all__ = ["SNIPPETS_FOLDER", "write_snippets"]

SNIPPETS_FOLDER = "snippets"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Language:
    file: str
    runtime: Runtime
    types: Collection[str]
    text: Callable[[StepInputs], str]
    how: str


_PYTHON = "`python train.py [examples.safetensors]`, with "
_LANGUAGES = (
    _Language(
        file="train.py",
        runtime="onnx",
        types=ONNX_TYPES,
        text=python_onnx,
        how=_PYTHON + "`pip install onnxruntime numpy safetensors`",
    ),
    _Language(
        file="train.py",
        runtime="executorch",
        types=EXECUTORCH_TYPES,
        text=python_executorch,
        how=_PYTHON + "`pip install executorch safetensors`",
    ),
    _Language(
        file="train.mjs",
        runtime="onnx",
        types=NODE_TYPES,
        text=node,
        how="`node train.mjs [examples.safetensors]`, after `npm install onnxruntime-node` here or in a folder above; "
        "`--ignore-scripts` leaves out what is for graphics cards",
    ),
    _Language(
        file="Train.kt",
        runtime="executorch",
        types=KOTLIN_TYPES,
        text=kotlin,
        how="for Android: copy it into an app that depends on `org.pytorch:executorch-android`",
    ),
    _Language(
        file="Train.swift",
        runtime="executorch",
        types=SWIFT_TYPES,
        text=swift,
        how="for iOS: copy it into an app that links the Swift package `executorch` and `kernels_optimized`; "
        "pocketfleet's tests do not compile it",
    ),
)


def write_snippets(bundle: Bundle) -> Path:
    """Write a minimal training loop for this very bundle, one file a language, into its folder ``snippets/``.

    Python and Node on ONNX Runtime, Kotlin and Swift on ExecuTorch; Python on ExecuTorch where the bundle is for it
    alone. A language whose tensors lack a type that the step takes is left out; ``README.md`` there says so. Files of
    these names are replaced.

    Returns:
        The folder.
    """
    inputs = StepInputs.of(bundle)
    texts = dict(_texts(inputs, bundle.runtimes))
    folder = bundle.path / SNIPPETS_FOLDER
    folder.mkdir(exist_ok=True)
    for file, text in texts.items():
        (folder / file).write_text(text, encoding="utf-8")
    return folder


def _texts(inputs: StepInputs, runtimes: Collection[Runtime]) -> Iterator[tuple[str, str]]:
    rows: dict[str, str] = {}
    for language in _LANGUAGES:
        if language.runtime not in runtimes or language.file in rows:
            continue
        lacks = sorted(inputs.dtypes - set(language.types))
        if lacks:
            rows[language.file] = f"left out: its tensors on this runtime lack {', '.join(lacks)}"
            continue
        rows[language.file] = language.how
        yield language.file, language.text(inputs)
    yield "README.md", _readme(inputs, rows)


def _readme(inputs: StepInputs, rows: dict[str, str]) -> str:
    lines = [
        "# Training loops for this bundle",
        "",
        "Each trains in batches, predicts, and keeps the trained weights. Programs that are started take a file with "
        f"`x`, {described(inputs.x)}, and `y`, {described(inputs.y)}; without one they train on made-up examples.",
        "",
        "| file | how it is used |",
        "|---|---|",
        *(f"| `{file}` | {how} |" for file, how in rows.items()),
        "",
    ]
    return "\n".join(lines)
