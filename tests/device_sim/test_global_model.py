from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from tiny import ALGORITHM, TinyTask, make_client, tiny_weights

from pocketfleet.device_sim.cohort import one_by_one_chunk
from pocketfleet.device_sim.device_store import DeviceStore
from pocketfleet.device_sim.flight import Flights, no_flights
from pocketfleet.device_sim.global_model import GlobalModel
from pocketfleet.device_sim.ledger import Ledger
from pocketfleet.device_sim.workers import Workers
from pocketfleet.errors import TrainingDivergedError
from pocketfleet.export.session import EagerSession
from pocketfleet.training.train_step import StepSettings
from pocketfleet.training.weights import tensors_sha256


def accepted(*devices: int, num_examples: dict[int, int] | None = None) -> Flights:
    """Device ``d`` did one step over its ``d + 1`` examples."""
    counts = [(num_examples or {}).get(device, device + 1) for device in devices]
    return no_flights(len(devices), device=devices, batch_seed=1, steps=1, num_examples=counts)


def model(folder: Path, *, broken: bool = False, w: float = 0.0) -> GlobalModel:
    task = TinyTask(broken=broken)
    return GlobalModel(
        weights=tiny_weights(w),
        algorithm=ALGORITHM,
        session=EagerSession(task, task.make_model(), StepSettings()),
        test=task.test_examples(),
        headline="mse",
        trainers=Workers(partial(make_client, broken=broken), processes=1),
        store=DeviceStore(folder, devices=4),
        population=4,
        chunk_size=one_by_one_chunk,
    )


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    return Ledger(4)


def test_the_next_model_is_the_mean_by_examples(tmp_path: Path, ledger: Ledger) -> None:
    made = model(tmp_path)
    before = made.sha256
    learning = made.learn(accepted(0, 1, 3), round_index=0, ledger=ledger)
    # One step at rate 0.25 from w = 0 moves each half the way to its y, d + 1: by 0.5, 1 and 2, on 1, 2 and 4
    # examples: (0.5 + 2 + 8) / 7 = 1.5. Losses y^2 before: (1 + 2 * 4 + 4 * 16) / 7.
    assert made.weights.trainable["w"].item() == pytest.approx(1.5)
    assert learning.train_loss == pytest.approx(73 / 7)
    assert learning.non_finite == 0
    assert made.sha256 != before
    assert made.sha256 == tensors_sha256(made.weights.trainable)
    assert made.store.model(3)["w"].item() == pytest.approx(2.0)
    assert ledger.column["trained_version"].tolist() == [0, 0, -1, 0]


def test_an_update_that_is_not_finite_weighs_nothing_and_is_counted(tmp_path: Path, ledger: Ledger) -> None:
    made, without = model(tmp_path / "a", broken=True), model(tmp_path / "b")
    learning = made.learn(accepted(0, 2, 3), round_index=0, ledger=ledger)
    without.learn(accepted(0, 3), round_index=0, ledger=Ledger(4))
    assert learning.non_finite == 1
    assert made.sha256 == without.sha256
    assert made.store.model(2) == {}


def test_a_round_without_any_finite_update_changes_nothing(tmp_path: Path, ledger: Ledger) -> None:
    made = model(tmp_path, broken=True)
    before = made.sha256
    with pytest.raises(TrainingDivergedError, match=r"round 5: all 1 updates not finite.*--resume RUN --set"):
        made.learn(accepted(2), round_index=5, ledger=ledger)
    assert made.sha256 == before


def test_a_model_that_is_not_finite_is_not_published(tmp_path: Path) -> None:
    with pytest.raises(TrainingDivergedError, match="test loss"):
        model(tmp_path, w=float("inf")).evaluate(round_index=3)


def test_an_evaluation_is_named_by_what_it_is_of(tmp_path: Path) -> None:
    # w = 1 on x = 1 against 1 and 3: squares 0 and 4.
    assert model(tmp_path, w=1.0).evaluate(round_index=0) == {
        "test_loss": pytest.approx(2.0),
        "test_mse": pytest.approx(2.0),
    }


def test_a_checkpoint_restores_weights_and_server_state(tmp_path: Path, ledger: Ledger) -> None:
    made = model(tmp_path / "a")
    made.server_state = {"velocity": made.weights.trainable["w"] + 7}
    made.learn(accepted(1), round_index=0, ledger=ledger)
    again = model(tmp_path / "b")
    again.restore(made.state())
    assert again.sha256 == made.sha256
    assert again.server_state["velocity"].item() == 7.0


def test_partial_work_weighs_what_it_was(tmp_path: Path) -> None:
    whole = model(tmp_path / "a")
    whole.learn(accepted(0, 3), round_index=0, ledger=Ledger(4))
    half = model(tmp_path / "b")
    half.learn(accepted(0, 3, num_examples={3: 2}), round_index=0, ledger=Ledger(4))
    # Means weighted by examples: 1 and 4 of them give 8.5 / 5, 1 and 2 give 4.5 / 3.
    assert whole.weights.trainable["w"].item() == pytest.approx(1.7)
    assert half.weights.trainable["w"].item() == pytest.approx(1.5)
    assert np.isfinite([whole.weights.trainable["w"].item()]).all()
