"""The benchmark's suites: named workloads, the same for everybody, and their bundles.

A suite never changes: a change of a model, a batch or a term of the step is a new version beside the old one. v1 is
plain SGD on batches of up to 16:

===================  =====================================================  ====================
workload             model                                                  one example
===================  =====================================================  ====================
``mlp``              13-32-24-16-1, squared error                           13 features
``lenet``            LeNet-5 with max-pooling                               1 x 28 x 28 pixels
``sensor-cnn``       two 1-D convolutions, max-pooling                      9 x 128 readings
``mobilenet``        five inverted residuals with group norm                3 x 32 x 32 pixels
``char-lstm``        one layer of 64, next character                        32 characters
``char-transformer``  two blocks of width 64, next character at every place  32 characters
===================  =====================================================  ====================

Examples are drawn, not data: a step's time does not depend on what a picture shows.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from pocketfleet.device_sim.bench_models import (
    CHARACTERS,
    CharLstm,
    CharTransformer,
    dense_net,
    lenet,
    mobile_net,
    sensor_net,
)
from pocketfleet.errors import InputError
from pocketfleet.export.bundle import Bundle
from pocketfleet.export.exporter import export_task
from pocketfleet.training.draws import draw_key, normal, numbers
from pocketfleet.training.examples import Examples
from pocketfleet.training.train_step import StepSettings
from pocketfleet.training.weights import Tensors

__all__ = ["SUITES", "SuiteTask", "export_workload", "make_task", "suite_bundles"]

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

MAX_BATCH = 16
# As many as the gate's twenty steps at the largest batch can tell apart from one batch seen again and again.
_EXAMPLES = 2 * MAX_BATCH
# Small enough that none of the models leaves its first losses' order of magnitude within the gate's steps.
_LEARNING_RATE = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class _Workload:
    """A model with the shapes of one example; ``tokens`` are characters, other inputs drawn from a normal."""

    make_model: Callable[[], nn.Module]
    x: tuple[int, ...]
    y: tuple[int, ...] = ()
    classes: int
    tokens: bool = False
    loss: Loss


def _squared_error(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return (output - target).square().mean(dim=1)


def _cross_entropy(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(output, target, reduction="none")


_V1: Mapping[str, _Workload] = {
    "mlp": _Workload(make_model=dense_net, x=(13,), y=(1,), classes=0, loss=_squared_error),
    "lenet": _Workload(make_model=lenet, x=(1, 28, 28), classes=10, loss=_cross_entropy),
    "sensor-cnn": _Workload(make_model=sensor_net, x=(9, 128), classes=6, loss=_cross_entropy),
    "mobilenet": _Workload(make_model=mobile_net, x=(3, 32, 32), classes=10, loss=_cross_entropy),
    "char-lstm": _Workload(make_model=CharLstm, x=(32,), classes=CHARACTERS, tokens=True, loss=_cross_entropy),
    "char-transformer": _Workload(
        make_model=CharTransformer, x=(32,), y=(32,), classes=CHARACTERS, tokens=True, loss=CharTransformer.loss
    ),
}
SUITES: Mapping[str, Mapping[str, _Workload]] = {"v1": _V1}


class SuiteTask:
    """One workload as a task over drawn examples; its only metric is the loss, under the name ``error``."""

    def __init__(self, name: str, workload: _Workload) -> None:
        self.name = name
        self._workload = workload

    def make_model(self) -> nn.Module:
        """The model, in training mode."""
        return self._workload.make_model()

    def loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """One loss an example, ``[batch]``."""
        return self._workload.loss(output, target)

    def metrics(self, output: torch.Tensor, target: torch.Tensor) -> Tensors:
        """``error``: the loss."""
        return {"error": self._workload.loss(output, target)}

    def train_examples(self) -> Examples:
        """Drawn ones."""
        work = self._workload
        x = _integers("x", work.x, CHARACTERS) if work.tokens else _normals("x", work.x)
        return Examples(x, _integers("y", work.y, work.classes) if work.classes else _normals("y", work.y))

    def test_examples(self) -> Examples:
        """The same."""
        return self.train_examples()


def _normals(side: str, shape: tuple[int, ...]) -> torch.Tensor:
    sizes = (_EXAMPLES, *shape)
    values = normal(draw_key(0, f"bench_suite.{side}"), int(torch.Size(sizes).numel()))
    return torch.from_numpy(values).to(torch.float32).reshape(sizes)


def _integers(side: str, shape: tuple[int, ...], most: int) -> torch.Tensor:
    sizes = (_EXAMPLES, *shape)
    values = numbers(draw_key(0, f"bench_suite.{side}"), int(torch.Size(sizes).numel())) % most
    return torch.from_numpy(values.astype("int64")).reshape(sizes)


def make_task(*, suite: str, workload: str) -> SuiteTask:
    """The task of a workload; ``load_task`` finds it by this module's name.

    Raises:
        InputError: there is no such suite or workload.
    """
    (name,) = _chosen(suite, (workload,))
    return SuiteTask(f"{suite}/{name}", SUITES[suite][name])


def _chosen(version: str, workloads: Sequence[str]) -> tuple[str, ...]:
    if version not in SUITES:
        raise InputError(f"--suite must be one of {', '.join(SUITES)}, got {version!r}")
    unknown = [name for name in workloads if name not in SUITES[version]]
    if unknown:
        raise InputError(f"suite {version} has the workloads {', '.join(SUITES[version])}, got {unknown[0]!r}")
    return tuple(workloads) or tuple(SUITES[version])


def suite_bundles(
    version: str, *, folder: Path, workloads: Sequence[str], observer: Callable[[str], None]
) -> Iterator[tuple[str, Bundle]]:
    """Names and bundles of a suite, in its order; those that ``folder`` lacks are exported into it.

    Raises:
        InputError: there is no such suite or workload, or ``folder`` holds something else under a bundle's name.
    """
    names = _chosen(version, workloads)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise InputError(f"--bundles {folder} is no folder to export into: {exc.strerror}") from exc
    for name in names:
        path = folder / f"{version}-{name}"
        if not path.exists():
            observer(f"{name}: exporting")
            export_workload(version, name, out=path)
        yield name, _found(path, f"{version}/{name}")


def _found(path: Path, task: str) -> Bundle:
    bundle = Bundle.load(path)
    if bundle.task.name != task:
        raise InputError(
            f"{path} holds a bundle of {bundle.task.name!r}, not of {task!r}: name another --bundles folder, or "
            "remove it"
        )
    return bundle


def export_workload(suite: str, workload: str, *, out: Path) -> Bundle:
    """Export one workload to ``out``, gated as every bundle is."""
    return export_task(
        make_task(suite=suite, workload=workload),
        out=out,
        settings=StepSettings(),
        hyper={"learning_rate": _LEARNING_RATE},
        max_batch=MAX_BATCH,
        task_path=f"{__name__}:make_task",
        task_options={"suite": suite, "workload": workload},
    )
