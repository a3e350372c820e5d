"""How long a runtime's operators take within one step, as the runtime itself measured them."""

from dataclasses import dataclass

__all__ = ["OperatorTime", "StepProfile"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorTime:
    """All calls of one operator, as means over the profiled steps.

    Attributes:
        name: as its runtime calls it: ``Gemm``, ``addmm``.
        calls: per step.
        seconds: per step, all calls together.
    """

    name: str
    calls: float
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StepProfile:
    """One step by operator.

    Attributes:
        operators: the slowest first.
        step_s: seconds of one whole step, measured in the same steps as the operators.
        profiler_s: of these, what the profiler took for its own notes outside of operators, where that is known.
    """

    operators: tuple[OperatorTime, ...]
    step_s: float
    profiler_s: float = 0.0

    @property
    def unaccounted_s(self) -> float:
        """Seconds of a step outside its operators and the profiler's notes: planning, binding, going on to the next."""
        rest_s = self.step_s - self.profiler_s - sum(operator.seconds for operator in self.operators)
        # Under a picosecond it is the sum's own rounding.
        return rest_s if abs(rest_s) > 1e-12 else 0.0
