"""Bundles and references for the tests of the trainer: ``build/android/references``, made anew when they could differ.

``tests/android_demo/reference_updates.py`` makes them, and says what they are. They depend on that script, on all of
``pocketfleet`` and on the versions of what it exports by; making them takes a minute.
"""

import hashlib
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Final

from compile import run
from modules import BUILD, REPOSITORY

__all__ = ["references"]

_SCRIPT: Final = REPOSITORY / "tests" / "android_demo" / "reference_updates.py"
_EXPORTED_BY: Final = ("torch", "executorch", "safetensors", "mlxtend")


def references() -> Path:
    """The folder of the references, up to date.

    Raises:
        BuildError: they cannot be made; what was printed says why.
    """
    folder, stamp = BUILD / "references", BUILD / "references.inputs"
    sources = [_SCRIPT, *sorted((REPOSITORY / "pocketfleet").rglob("*.py"))]
    digest = hashlib.sha256(" ".join([sys.version, *map(version, _EXPORTED_BY)]).encode())
    for path in sources:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    if folder.is_dir() and stamp.is_file() and stamp.read_text() == digest.hexdigest():
        return folder
    stamp.unlink(missing_ok=True)
    print("exporting bundles and training with PyTorch: build/android/references", flush=True)
    run([sys.executable, _SCRIPT, folder], what="references", environment={"PYTHONPATH": str(REPOSITORY)})
    stamp.write_text(digest.hexdigest())
    return folder
