"""The table of ``docs/models.md``: what each family costs and how far it is from PyTorch, in each mode.

``python -m tests.export.families.table`` writes it; names of families measure these again and keep the other rows.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from pocketfleet.export import Bundle, GateReport, verify_bundle
from pocketfleet.export.executorch import one_thread
from pocketfleet.export.gate_report import GateRow
from pocketfleet.export.manifest import WEIGHTS_FILE
from pocketfleet.export.session import Runtime, open_session
from pocketfleet.training.model_task import ModelTask
from pocketfleet.training.train_step import TrainState, hyper_tensors

from . import FAMILIES, Family
from .family import Batch, seeded
from .matrix import RANK, SLOW_STEPS, STEPS, Cell, export, gate_steps

__all__ = ["PAGE", "kept_rows", "row_keys"]

PAGE = Path(__file__).parents[3] / "docs" / "models.md"

_TEXT = f"""# Models that train on a phone

Each family below is exported and passes the gate for both runtimes: in full, its head alone, and, where it has dense
layers worth adapting, LoRA of rank {RANK}. The tests do so under SGD, SGD with Nesterov momentum and weight decay,
Adam and AdamW; the figures are plain SGD's, measured on one machine.

- *step*: the median of five steps on one thread. A time of that machine, beside others, to compare rows by.
- *gradient*: the worst error of any tensor's gradient at the first step, relative to its norm; allowed is 1e-4.
- *moved*: the worst error of how far any tensor moved in {STEPS} steps, {SLOW_STEPS} for the models of real size. In
  brackets what is allowed: three times the distance of PyTorch's `float32` from its own `float64`, at least 1e-4. Deep
  networks with ReLU drift apart by themselves; there the first figure tells more.
- In MobileNetV2 at full size, freshly drawn, 52 layers of batch norm turn `float32`'s rounding into a hundredth of the
  gradient in eager PyTorch too, and the gate allows more ([export.md](export.md#7-the-gate)). In full it proves little
  there; the small ones have the same operators.
- *arena*: what `train_step` plans for the largest batch, without its inputs; for ONNX the peak of values alive at once.
- *program*: the runtime's files. *version*: `weights.safetensors`, all that a new version of the model sends.

"""
_HEADER = (
    *("family", "what", "mode", "batch"),
    *("ExecuTorch step", "gradient", "moved", "arena", "program"),
    *("ONNX step", "gradient", "moved", "arena", "program", "version"),
)
_RUNTIMES: tuple[Runtime, ...] = ("executorch", "onnx")
# Of which the median is a row's.
_TIMED_STEPS = 5


def row_keys() -> list[tuple[str, str]]:
    """The family and the mode of every row, in order."""
    return [(family.name, mode) for family in FAMILIES.values() for mode in family.modes]


def kept_rows(page: Path = PAGE) -> dict[tuple[str, str], str]:
    """The rows of a page by family and mode."""
    lines = page.read_text(encoding="utf-8").splitlines() if page.exists() else []
    rows = {}
    for line in lines:
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == len(_HEADER) and cells[0] in FAMILIES:
            rows[cells[0], cells[2]] = line
    return rows


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"


def _worst(report: GateReport, runtime: Runtime, check: str) -> GateRow:
    rows = [row for row in report.rows if row.runtime == runtime and row.check.startswith(check)]
    return max(rows, key=lambda row: row.severity)


def _time(seconds: float) -> str:
    return f"{seconds:.2g} s" if seconds >= 1 else f"{seconds * 1e3:.2g} ms"


def _step_s(bundle: Bundle, runtime: Runtime, batch: Batch) -> float:
    """Seconds of a training step on one thread, after one that is left out."""
    session, state = open_session(bundle, runtime), TrainState.start(bundle.weights(), bundle.settings)
    hyper = hyper_tensors(bundle.settings, bundle.hyper)
    seconds = []
    with one_thread():
        for _ in range(1 + _TIMED_STEPS):
            before_s = time.perf_counter()
            _, state = session.train_step(state, *batch, hyper)
            seconds.append(time.perf_counter() - before_s)
    return statistics.median(seconds[1:])


def _runtime_cells(bundle: Bundle, report: GateReport, runtime: Runtime, batch: Batch, *, steps: int) -> list[str]:
    moved, footprint = _worst(report, runtime, f"{steps} steps"), bundle.footprint(runtime)
    return [
        _time(_step_s(bundle, runtime, batch)),
        f"{_worst(report, runtime, 'gradient').error:.0e}",
        f"{moved.error:.0e} ({moved.tolerance:.0e})",
        _size(footprint.planned_bytes["train_step"]),
        _size(sum(footprint.file_bytes.values())),
    ]


def _measure(family: Family, mode: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        bundle = export(Cell(family, mode, "sgd"), Path(folder) / "bundle")
        model, batch = seeded(family.make_model), family.make_batch(family.batch_size)
        steps = gate_steps(family)
        report = verify_bundle(bundle, ModelTask(model, family.loss, batch), steps=steps)
        figures = [
            cell for runtime in _RUNTIMES for cell in _runtime_cells(bundle, report, runtime, batch, steps=steps)
        ]
        version = _size(bundle.manifest.files[WEIGHTS_FILE].bytes)
    return _line([family.name, family.what, mode, str(family.batch_size), *figures, version])


def _page(rows: Iterable[str]) -> str:
    return _TEXT + "\n".join([_line(_HEADER), _line(["---"] * len(_HEADER)), *rows]) + "\n"


def main(names: Sequence[str]) -> None:
    """Measure the named families, or all, and write the page after each row, so that what was measured stays."""
    for name, mode in row_keys():
        if not names or name in names:
            rows = kept_rows() | {(name, mode): _measure(FAMILIES[name], mode)}
            PAGE.write_text(_page(rows[key] for key in row_keys() if key in rows), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
