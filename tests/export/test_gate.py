"""The gate lets eager PyTorch through, and each way of being wrong is caught by the check made for it."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import toy
from torch import nn

from pocketfleet.errors import GateError, InputError
from pocketfleet.export.gate import run_gate
from pocketfleet.export.gate_report import GateReport, GateRow, Suspects, require
from pocketfleet.export.session import EagerSession
from pocketfleet.training.examples import Examples
from pocketfleet.training.task import initial_model
from pocketfleet.training.train_step import Hyper, StepSettings, TrainState
from pocketfleet.training.weights import Tensors, Weights, model_weights

SETTINGS = StepSettings(momentum=True)
MAX_BATCH = 8
Step = tuple[torch.Tensor, TrainState]


class Fake(EagerSession):
    """An eager session to be made wrong in one way; it counts its steps."""

    calls = 0

    def __init__(self) -> None:
        task = toy.normalised_toy()
        super().__init__(task, initial_model(task, seed=0), SETTINGS)

    def train_step(
        self, state: TrainState, x: torch.Tensor, y: torch.Tensor, hyper: Hyper, *, dropout_seed: int = 0
    ) -> Step:
        self.calls += 1
        return super().train_step(state, x, y, hyper, dropout_seed=dropout_seed)


class DoubledGradient(Fake):
    def train_step(
        self, state: TrainState, x: torch.Tensor, y: torch.Tensor, hyper: Hyper, *, dropout_seed: int = 0
    ) -> Step:
        loss, end = super().train_step(state, x, y, hyper, dropout_seed=dropout_seed)
        name, slot = "4.weight", "momentum/4.weight"
        doubled = 2 * end.trainable[name] - state.trainable[name]
        return loss, replace(
            end,
            trainable={**end.trainable, name: doubled},
            optimizer_slots={**end.optimizer_slots, slot: 2 * end.optimizer_slots[slot]},
        )


class Accumulating(Fake):
    """Off by one rounding at every other call."""

    def train_step(
        self, state: TrainState, x: torch.Tensor, y: torch.Tensor, hyper: Hyper, *, dropout_seed: int = 0
    ) -> Step:
        loss, end = super().train_step(state, x, y, hyper, dropout_seed=dropout_seed)
        name = "6.bias"
        grown = end.trainable[name] * (1 + self.calls % 2 * 2.0**-23)
        return loss, replace(end, trainable={**end.trainable, name: grown})


class PlannedForOneSize(Fake):
    """Reads a full batch whatever it is given."""

    def train_step(
        self, state: TrainState, x: torch.Tensor, y: torch.Tensor, hyper: Hyper, *, dropout_seed: int = 0
    ) -> Step:
        missing = MAX_BATCH - len(x)
        zeros = x.new_zeros(missing, *x.shape[1:])
        return super().train_step(
            state, torch.cat([x, zeros]), torch.cat([y, y.new_zeros(missing)]), hyper, dropout_seed=dropout_seed
        )


class Forgetful(Fake):
    """Starts every step without momentum."""

    def train_step(
        self, state: TrainState, x: torch.Tensor, y: torch.Tensor, hyper: Hyper, *, dropout_seed: int = 0
    ) -> Step:
        slots = {name: torch.zeros_like(value) for name, value in state.optimizer_slots.items()}
        return super().train_step(replace(state, optimizer_slots=slots), x, y, hyper, dropout_seed=dropout_seed)


class StillBuffers(Fake):
    def train_step(
        self, state: TrainState, x: torch.Tensor, y: torch.Tensor, hyper: Hyper, *, dropout_seed: int = 0
    ) -> Step:
        loss, end = super().train_step(state, x, y, hyper, dropout_seed=dropout_seed)
        return loss, replace(end, buffers=state.buffers)


class Diverging(Fake):
    def train_step(
        self, state: TrainState, x: torch.Tensor, y: torch.Tensor, hyper: Hyper, *, dropout_seed: int = 0
    ) -> Step:
        loss, end = super().train_step(state, x, y, hyper, dropout_seed=dropout_seed)
        return loss, replace(end, trainable={name: value * torch.nan for name, value in end.trainable.items()})


class Unlearning(Fake):
    """Predicts with a frozen copy of the first weights that it saw."""

    kept: Weights | None = None

    def train_step(
        self, state: TrainState, x: torch.Tensor, y: torch.Tensor, hyper: Hyper, *, dropout_seed: int = 0
    ) -> Step:
        if self.kept is None:
            self.kept = Weights(trainable=state.trainable, buffers=state.buffers, frozen=state.frozen)
        return super().train_step(state, x, y, hyper, dropout_seed=dropout_seed)

    def predict(self, weights: Weights, x: torch.Tensor) -> torch.Tensor:
        return super().predict(self.kept or weights, x)


class WrongScore(Fake):
    def evaluate(self, weights: Weights, x: torch.Tensor, y: torch.Tensor) -> Tensors:
        scores = super().evaluate(weights, x, y)
        return {**scores, "loss": scores["loss"] * 1.0001}


def gate(session: EagerSession) -> GateReport:
    task = toy.normalised_toy()
    model = initial_model(task, seed=0)
    examples = task.train_examples()
    return run_gate(
        {"fake": session},
        EagerSession(task, model, SETTINGS),
        weights=model_weights(model, examples.x[:2]),
        examples=examples,
        settings=SETTINGS,
        hyper={"learning_rate": 0.05, "momentum": 0.9},
        max_batch=MAX_BATCH,
    )


def failed_checks(report: GateReport) -> set[str]:
    return {row.check for row in report.failures}


def test_eager_passes_without_any_error() -> None:
    report = gate(Fake())
    assert report.passed
    assert max(row.error for row in report.rows) == 0.0
    # 8, five eighths of it, and a single example.
    assert {row.check for row in report.rows if "gradient" in row.check} == {
        *("gradient, batch 8", "gradient, batch 5", "gradient, batch 1")
    }


def test_a_doubled_gradient_names_its_tensor() -> None:
    report = gate(DoubledGradient())
    gradients = [row for row in report.failures if row.check == "gradient, batch 8"]
    assert {row.tensor for row in gradients} == {"4.weight"}
    # The difference is the true gradient itself.
    assert gradients[0].error == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize(
    ("make", "checks"),
    [
        (Accumulating, {"repeat"}),
        (PlannedForOneSize, {"gradient, batch 5", "gradient, batch 1", "buffers, batch 5", "buffers, batch 1"}),
        (Forgetful, {"20 steps"}),
        (StillBuffers, {"buffers, batch 8", "buffers, batch 5", "buffers, batch 1", "20 steps"}),
        (Unlearning, {"predict, batch 8", "predict, batch 5", "predict, batch 1", "predict learns"}),
        (WrongScore, {"evaluate, batch 8", "evaluate, batch 5", "evaluate, batch 1"}),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_each_wrong_program_fails_its_own_check(make: Callable[[], Fake], checks: set[str]) -> None:
    assert failed_checks(gate(make())) == checks


class Kinked(toy.Toy):
    """A rectifier whose inputs are 1 but for one example in 40, where it is 0, at the kink."""

    def __init__(self) -> None:
        super().__init__(lambda: nn.Sequential(nn.Linear(1, 3), nn.ReLU(), nn.Linear(3, 4)), 1)
        x = torch.full((40, 1), 2.0)
        x[0] = 1.0
        self._examples = Examples(x, torch.arange(40) % 4)

    def make_model(self) -> nn.Module:
        model = super().make_model()
        assert isinstance(model, nn.Sequential)
        with torch.no_grad():
            model[0].weight.fill_(1.0)
            model[0].bias.fill_(-1.0)
        return model


class RoundedOtherwise(EagerSession):
    """Computes with weights a rounding larger, on the other side of the kink; ``wrong`` scales gradients too."""

    wrong = 1.0

    def train_step(
        self, state: TrainState, x: torch.Tensor, y: torch.Tensor, hyper: Hyper, *, dropout_seed: int = 0
    ) -> Step:
        name = "0.weight"
        nudged = replace(state, trainable={**state.trainable, name: state.trainable[name] * (1 + 2.0**-22)})
        loss, end = super().train_step(nudged, x, y, hyper, dropout_seed=dropout_seed)
        slots = {key: value * self.wrong for key, value in end.optimizer_slots.items()}
        return loss, replace(end, optimizer_slots=slots)


def kinked_gate(*, wrong: float) -> GateReport:
    task, settings = Kinked(), StepSettings(momentum=True)
    model = initial_model(task, seed=0)
    session = RoundedOtherwise(task, model, settings)
    session.wrong = wrong
    examples = task.train_examples()
    return run_gate(
        {"fake": session},
        EagerSession(task, model, settings),
        weights=model_weights(model, examples.x[:2]),
        examples=examples,
        settings=settings,
        hyper={"learning_rate": 0.01, "momentum": 0.9},
        max_batch=40,
        steps=1,
    )


def test_a_gradient_that_jumps_within_rounding_may_jump() -> None:
    report = kinked_gate(wrong=1.0)
    rows = {(row.check, row.tensor): row for row in report.rows}
    jumped = rows["gradient, batch 40", "0.weight"]
    # One example of 40 more: some percent, three times which is allowed.
    assert 0.005 < jumped.error < 0.1
    assert jumped.error < jumped.tolerance <= 0.2
    assert "gradient, batch 40" not in failed_checks(report)


def test_a_kink_hides_no_wrong_operator() -> None:
    rows = [row for row in kinked_gate(wrong=1.3).failures if row.check == "gradient, batch 40"]
    assert {row.tensor for row in rows} == {"0.weight", "0.bias", "2.weight", "2.bias"}


def test_without_a_kink_no_more_than_the_rule_is_allowed() -> None:
    # The smooth part of the same model: its gradient moves by rounding alone.
    report = kinked_gate(wrong=1.001)
    failed = {row.tensor for row in report.failures if row.check == "gradient, batch 40"}
    assert "2.bias" in failed


class SlightlyFast(EagerSession):
    """Every step goes 0.025 % too far; its gradient, read from the momentum, is right."""

    def train_step(
        self, state: TrainState, x: torch.Tensor, y: torch.Tensor, hyper: Hyper, *, dropout_seed: int = 0
    ) -> Step:
        loss, end = super().train_step(state, x, y, hyper, dropout_seed=dropout_seed)
        far = {name: value + 2.5e-4 * (value - state.trainable[name]) for name, value in end.trainable.items()}
        return loss, replace(end, trainable=far)


def test_a_gradient_that_is_nothing_but_rounding_is_no_kink() -> None:
    # A bias before batch normalisation: its gradient is rounding, which moves all the time. The rest is smooth.
    task = toy.Toy(lambda: nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 4)), 3)
    model = initial_model(task, seed=0)
    examples = task.train_examples()
    report = run_gate(
        {"fake": SlightlyFast(task, model, SETTINGS)},
        EagerSession(task, model, SETTINGS),
        weights=model_weights(model, examples.x[:2]),
        examples=examples,
        settings=SETTINGS,
        hyper={"learning_rate": 0.05, "momentum": 0.9},
        max_batch=MAX_BATCH,
    )
    assert "20 steps" in failed_checks(report)


def test_no_number_is_an_error() -> None:
    assert "20 steps" in failed_checks(gate(Diverging()))


def test_a_learning_rate_at_which_eager_explodes_is_halved() -> None:
    task = toy.dense_toy()
    model = initial_model(task, seed=0)
    examples = task.train_examples()
    report = run_gate(
        {"fake": EagerSession(task, model, StepSettings())},
        EagerSession(task, model, StepSettings()),
        weights=model_weights(model, examples.x[:2]),
        examples=examples,
        settings=StepSettings(),
        hyper={"learning_rate": 1e38},
        max_batch=4,
    )
    assert report.passed


class Infinite(toy.Toy):
    """Its loss divides by what is zero for some batches."""

    def loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return super().loss(output, target) / (target - 2)


def test_what_to_do_where_eager_is_not_finite() -> None:
    task = Infinite(lambda: nn.Sequential(nn.Linear(3, 4)), 3)
    model = initial_model(task, seed=0)
    examples = task.train_examples()
    with pytest.raises(InputError, match=r"does not stay finite.*look at the loss \(a logarithm of 0, a division by 0"):
        run_gate(
            {},
            EagerSession(task, model, StepSettings()),
            weights=model_weights(model, examples.x[:2]),
            examples=examples,
            settings=StepSettings(),
            hyper={"learning_rate": 0.1},
            max_batch=4,
        )


def row(*, error: float, tensor: str = "0.weight", check: str = "gradient, batch 8") -> GateRow:
    return GateRow(runtime="executorch", check=check, tensor=tensor, error=error, tolerance=1e-4)


def test_the_table_shows_the_worst_of_each_check() -> None:
    report = GateReport((row(error=1e-6), row(error=0.5, tensor="1.bias"), row(error=0.0, check="repeat")))
    assert str(report).splitlines() == [
        "runtime     check              worst tensor  error    allowed",
        "executorch  gradient, batch 8  1.bias        5.0e-01  1.0e-04  FAILED",
        "executorch  repeat             0.weight      0.0e+00  1.0e-04  ok",
    ]


def test_a_known_offender_is_blamed_first() -> None:
    suspects = {
        "executorch": Suspects(
            operators=frozenset({"mm", "max_pool2d_with_indices_backward"}), readers={"0.weight": ("aten.mm",)}
        )
    }
    with pytest.raises(GateError, match=r"of 0\.weight is off by 5\.0e-01.*max_pool2d_with_indices_backward adds into"):
        require(GateReport((row(error=0.5),)), suspects)


def test_otherwise_the_first_readers_are_blamed() -> None:
    suspects = {"executorch": Suspects(readers={"0.weight": ("aten.mm.default",)})}
    with pytest.raises(GateError, match=r"suspected: aten\.mm\.default, which read 0\.weight first"):
        require(GateReport((row(error=0.5),)), suspects)


def test_nothing_compared_is_no_pass() -> None:
    with pytest.raises(GateError, match="compared nothing"):
        require(GateReport(()), {})
