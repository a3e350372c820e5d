"""What a gate found: one row a comparison, a table to print, and whom to suspect where a row failed."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pocketfleet.errors import GateError

__all__ = ["GateReport", "GateRow", "Suspects", "require"]

# Operators known to compute wrongly without an error, by runtime: ExecuTorch's as its footprint names them, ONNX's by
# torch's name, for it is the translation that is wrong.
_SILENT_OFFENDERS: Mapping[str, Mapping[str, str]] = {
    "executorch": {
        "max_pool2d_with_indices_backward": "adds into memory that it does not set to zero (executorch 1.5.1)",
        "native_dropout": "does not scale the values that it keeps (executorch 1.5.1)",
    },
    "onnx": {
        "nll_loss_forward": "leaves the gradient of a mean undivided by the batch (onnxscript 0.7.2)",
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class GateRow:
    """One comparison of one tensor: ``error`` was found, ``tolerance`` is allowed."""

    runtime: str
    check: str
    tensor: str
    error: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether the error is a number within the tolerance."""
        return self.error <= self.tolerance

    @property
    def severity(self) -> float:
        """The error in units of the tolerance; infinite for no number."""
        if math.isnan(self.error):
            return math.inf
        if self.tolerance:
            return self.error / self.tolerance
        return math.inf if self.error else 0.0


@dataclass(frozen=True, slots=True)
class GateReport:
    """Every comparison of a gate; printed, it is a table of the worst of each check."""

    rows: tuple[GateRow, ...]

    @property
    def failures(self) -> tuple[GateRow, ...]:
        """The rows that did not pass."""
        return tuple(row for row in self.rows if not row.passed)

    @property
    def passed(self) -> bool:
        """Whether something was compared and every row passed."""
        return bool(self.rows) and not self.failures

    def worst(self) -> tuple[GateRow, ...]:
        """For each runtime and check the row that came closest to its tolerance, or went furthest past it."""
        worst: dict[tuple[str, str], GateRow] = {}
        for row in self.rows:
            key = (row.runtime, row.check)
            if key not in worst or row.severity > worst[key].severity:
                worst[key] = row
        return tuple(worst.values())

    def __str__(self) -> str:
        return _table(self.worst())


def _table(rows: Sequence[GateRow]) -> str:
    cells = [("runtime", "check", "worst tensor", "error", "allowed", "")]
    for row in rows:
        verdict = "ok" if row.passed else "FAILED"
        cells.append((row.runtime, row.check, row.tensor, f"{row.error:.1e}", f"{row.tolerance:.1e}", verdict))
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspects:
    """Where to look when one runtime fails.

    Attributes:
        operators: the names of the operators in its training step; of an ONNX program also those that torch traced.
        readers: by trainable tensor, the first operators that read it; empty where the graph is not at hand.
    """

    operators: frozenset[str] = frozenset()
    readers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def hint(self, row: GateRow) -> str:
        """One sentence on a failed row."""
        known = [
            f"{name} {what}" for name, what in _SILENT_OFFENDERS.get(row.runtime, {}).items() if name in self.operators
        ]
        if known:
            return "suspected, for it is known to be wrong: " + "; ".join(known)
        if row.tensor in self.readers:
            return f"suspected: {', '.join(self.readers[row.tensor])}, which read {row.tensor} first"
        return "no operator of this program is known to be wrong"


def require(report: GateReport, suspects: Mapping[str, Suspects]) -> None:
    """Pass, or say which tensor failed first, where to look, and everything that failed.

    Raises:
        GateError: some row failed.
    """
    if report.passed:
        return
    if not report.rows:
        raise GateError("the gate compared nothing")
    first = report.failures[0]
    hint = suspects.get(first.runtime, Suspects()).hint(first)
    failed = GateReport(report.failures)
    raise GateError(
        f"the {first.runtime} program does not compute what PyTorch computes: {first.check} of {first.tensor} is off "
        f"by {first.error:.1e}, allowed {first.tolerance:.1e}; {hint}. No bundle was written. Replace the operator in "
        f"the model, or report it with the model.\n{failed}"
    )
