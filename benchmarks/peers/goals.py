"""What pocketfleet is to reach beside its peers, and whether rows of a comparison reach it.

Rules:

1. Either side of a goal is its fastest row whose system begins with the goal's words. Compiled rows stand for a side
   only where the goal names them: nobody has to compile to meet the others.
2. A goal is judged twice: by the rounds' seconds, and by them with what pocketfleet's call takes *around* them, which
   peers are not charged for. Of a compiled row that is also the round that compiles.
3. A missed goal is told; it ends nothing. Where a side did not run, there is no judgement.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from comparison import Row

__all__ = [
    "GOALS",
    "PUBLISHED",
    "STAGE_LIMIT",
    "Goal",
    "Judgement",
    "Published",
    "SecondsGoal",
    "fastest",
    "heavy_stages",
    "judge",
]

_COMPILED = "compiled"
# Of the wall time, that no stage but training shall take.
STAGE_LIMIT = 0.15


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """On ``workload`` the fastest row of ``ours`` has ``ratio`` times the throughput of ``peer``'s, or more."""

    workload: str
    ours: str
    peer: str
    ratio: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SecondsGoal:
    """On ``workload`` the fastest row of ``ours`` takes less than ``seconds`` for all rounds."""

    workload: str
    ours: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What somebody else reports of a workload: another machine, not measured here."""

    workload: str
    system: str
    rounds: int
    seconds: float
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """A goal's figure: a ratio of throughputs, or seconds.

    Attributes:
        ours: the row that stands for pocketfleet.
        peer: the row that it is held against; ``None`` for seconds.
        measured: by the rounds alone.
        whole: with what is around them.
        met: whether ``measured`` reaches the goal; ``met_whole``: whether ``whole`` does.
    """

    ours: Row
    peer: Row | None
    measured: float
    whole: float
    met: bool
    met_whole: bool


_WORKLOADS = ("mlp", "mlp-100", "lenet", "logistic")
_PROCESSES = ("1 process", "2 processes")
GOALS: tuple[Goal | SecondsGoal, ...] = (
    Goal(workload="mlp", ours="pocketfleet", peer="Flower", ratio=100.0),
    Goal(workload="mlp", ours="pocketfleet", peer="pfl-research", ratio=15.0),
    Goal(workload="mlp", ours=f"pocketfleet, {_COMPILED}", peer="pfl-research", ratio=30.0),
    Goal(workload="lenet", ours="pocketfleet", peer="Flower", ratio=2.0),
    Goal(workload="lenet", ours="pocketfleet", peer="pfl-research", ratio=1.4),
    # At most 0.9 times its time; its processes have one thread each.
    Goal(workload="lenet", ours="pocketfleet", peer="plain PyTorch loop, 2 processes", ratio=1 / 0.9),
    # Physics, events and tables may cost nothing: no slower than a loop by hand on as many processes.
    *(
        Goal(workload=workload, ours=f"pocketfleet, {processes}", peer=f"plain PyTorch loop, {processes}", ratio=1.0)
        for workload in _WORKLOADS
        for processes in _PROCESSES
    ),
    SecondsGoal(workload="logistic", ours="pocketfleet", seconds=10.0),
)
# 30:14 and 3:20 on CPU, by the table of the task LR_MNIST.
_FLUTE = "README of microsoft/msrflute@0e8762b"
PUBLISHED = (
    Published(workload="logistic", system="Flower 1.0.0", rounds=100, seconds=30 * 60.0 + 14.0, source=_FLUTE),
    Published(workload="logistic", system="FLUTE", rounds=100, seconds=3 * 60.0 + 20.0, source=_FLUTE),
)


def fastest(rows: Iterable[Row], *, workload: str, system: str) -> Row | None:
    """The fastest row of a workload whose system begins with ``system``, by rule 1; ``None`` if it did not run."""
    candidates = [
        row
        for row in rows
        if row.workload == workload
        and row.system.startswith(system)
        and (_COMPILED in row.system) == (_COMPILED in system)
    ]
    return max(candidates, key=lambda row: row.steps_per_s, default=None)


def judge(rows: Sequence[Row], goal: Goal | SecondsGoal) -> Judgement | None:
    """A goal's figures; ``None`` where a side did not run."""
    ours = fastest(rows, workload=goal.workload, system=goal.ours)
    if ours is None:
        return None
    if isinstance(goal, SecondsGoal):
        return Judgement(
            ours=ours,
            peer=None,
            measured=ours.all_rounds_s,
            whole=ours.whole_s,
            met=ours.all_rounds_s < goal.seconds,
            met_whole=ours.whole_s < goal.seconds,
        )
    peer = fastest(rows, workload=goal.workload, system=goal.peer)
    if peer is None:
        return None
    measured, whole = ours.steps_per_s / peer.steps_per_s, peer.whole_s / ours.whole_s
    return Judgement(
        ours=ours,
        peer=peer,
        measured=measured,
        whole=whole,
        met=measured >= goal.ratio,
        met_whole=whole >= goal.ratio,
    )


def heavy_stages(row: Row) -> list[str]:
    """The stages but training that take more than ``STAGE_LIMIT`` of the wall time."""
    return [stage for stage, share in row.stages.items() if stage != "training" and share > STAGE_LIMIT]
