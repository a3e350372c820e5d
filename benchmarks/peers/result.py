"""What one simulator's run of one workload gave: a JSON file that the driver compares with the others'."""

import dataclasses
import importlib.metadata
import json
import platform
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Result", "versions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One measurement.

    Attributes:
        system: the row's name.
        workload: by name.
        seconds: of the rounds, after imports and warm-up, evaluation of every round included.
        device_steps: training steps done in them, over all devices.
        losses: on the common test examples, of the initial model and after every round.
        around_s: of the same call, outside ``seconds``: reading data before, joining tables after.
        warm_rounds: the first ones that were warm-up and are in neither ``seconds`` nor ``device_steps``.
        versions: of Python and the packages that did it.
        stages: shares of the wall time by stage, of a run of its own; empty where there are none to tell.
    """

    system: str
    workload: str
    seconds: float
    device_steps: int
    losses: list[float]
    versions: dict[str, str]
    around_s: float = 0.0
    warm_rounds: int = 0
    stages: dict[str, float] = field(default_factory=dict)

    @property
    def rounds(self) -> int:
        """How many were timed."""
        return len(self.losses) - 1 - self.warm_rounds

    @property
    def steps_per_s(self) -> float:
        """Device-steps a second."""
        return self.device_steps / self.seconds

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_text(json.dumps(dataclasses.asdict(self), indent=2) + "\n")

    @classmethod
    def load(cls, path: Path) -> "Result":
        """Read what ``save`` wrote."""
        return cls(**json.loads(path.read_text()))


def versions(*packages: str) -> dict[str, str]:
    """Of Python and the installed ``packages``."""
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in packages}}
