"""What works on this machine and what does not: each thing that a simulation needs, tried for real."""

import importlib
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

__all__ = ["Finding", "examine"]

# What ``make demo`` leaves behind, with room to spare: two run directories and a model each phone.
_DISK_BYTES = 1_000_000_000
_INSTALL = 'install the project again: pip install -e ".[dev]"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing tried: whether it works, what was found, what to do if it does not."""

    what: str
    works: bool
    found: str
    advice: str


def examine() -> list[Finding]:
    """Try everything; never raises for what it finds."""
    checks: list[tuple[str, Callable[[], str], str]] = [
        ("Python", _python, "use Python 3.11 to 3.13"),
        *((name, _version_of(name), _INSTALL) for name in ("torch", "executorch", "onnx", "onnxruntime", "onnxscript")),
        ("data: Boston, MNIST", _data, _INSTALL),
        (
            "export and both runtimes",
            _export,
            "run pocketfleet --debug export boston --out bundle to see where it fails",
        ),
        ("cores", _cores, ""),
        ("disk for runs", _disk, f"free {_DISK_BYTES / 1e9:.0f} GB here, or use --out on another disk"),
    ]
    return [_finding(what, check, advice) for what, check, advice in checks]


def _finding(what: str, check: Callable[[], str], advice: str) -> Finding:
    try:
        return Finding(what=what, works=True, found=check(), advice="")
    except Exception as exc:  # noqa: BLE001 - whatever is wrong with the machine is the finding
        return Finding(what=what, works=False, found=f"{type(exc).__name__}: {exc}", advice=advice)


def _python() -> str:
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        raise RuntimeError(f"Python {platform.python_version()}")
    return f"{platform.python_version()} on {platform.system()} {platform.machine()}"


def _version_of(name: str) -> Callable[[], str]:
    def check() -> str:
        importlib.import_module(name)
        return metadata.version(name)

    return check


def _data() -> str:
    from pocketfleet.training.task import load_task

    counts = [len(load_task(name).train_examples()) for name in ("boston", "mnist")]
    return " and ".join(f"{count:,}" for count in counts) + " training examples"


def _export() -> str:
    from pocketfleet.export.exporter import export_task
    from pocketfleet.training.task import load_task
    from pocketfleet.training.train_step import StepSettings

    with tempfile.TemporaryDirectory() as folder:
        export_task(
            load_task("boston"),
            out=Path(folder) / "bundle",
            settings=StepSettings(),
            hyper={"learning_rate": 0.001},
            max_batch=8,
            task_path="boston",
        )
    return "Boston exported; ExecuTorch and ONNX Runtime train as PyTorch does"


def _cores() -> str:
    return f"{os.cpu_count()}; engine.processes goes up to that"


def _disk() -> str:
    free = shutil.disk_usage(Path.cwd()).free
    if free < _DISK_BYTES:
        raise OSError(f"{free / 1e9:.1f} GB free")
    return f"{free / 1e9:.0f} GB free"
