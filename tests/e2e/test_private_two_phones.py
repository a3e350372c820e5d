"""Alice and Bob in private: the same model as in clear, and nothing of either on the server but their sum."""

import json
import sqlite3
from pathlib import Path

import pytest
import torch

from pocketfleet import Bundle, Experiment, Run, simulate
from pocketfleet.device_sim import secure_sum
from pocketfleet.device_sim.explained_sum import explained_sum
from pocketfleet.emulation import EmulationPlan, emulate
from pocketfleet.errors import InputError
from pocketfleet.training.codec.seeds import round_seed
from pocketfleet.training.privacy.secure_aggregation.fixed_point import FixedPoint
from pocketfleet.training.privacy.secure_aggregation.secure_vector import SecureMean, SecureVector
from pocketfleet.training.privacy.secure_aggregation.transcript import Transcript, recomputed_sum
from pocketfleet.training.update import Update, tensors_from_bytes
from pocketfleet.training.weights import Tensors

COUNT = 3
SETTINGS = [
    f"rounds.count={COUNT}",
    "engine.runtime=onnx",
    "fleet.program=onnx",
    "rounds.deadline_s=3600.0",
    # A full battery: nobody waits for a charger.
    'fleet.overrides=[{devices="all", battery_ratio=1.0}]',
]
# The step of the fixed point of the packaged experiment: 8 over 2 ** 19 - 1.
FIXED_POINT = FixedPoint(value_range=8.0, bits=20, max_weight=1024, cohort=2)


def experiment(bundle: Bundle, *settings: str) -> Experiment:
    return Experiment.load("boston-two-phones-private", [*SETTINGS, f"task.bundle={bundle.path}", *settings])


@pytest.fixture(scope="module")
def private(boston_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return simulate(experiment(boston_bundle), tmp_path_factory.mktemp("private") / "run")


def test_masks_change_no_bit(private: Run, boston_bundle: Bundle, tmp_path: Path) -> None:
    clear = simulate(experiment(boston_bundle, "secure_aggregation.masks=false"), tmp_path / "run")
    assert clear.summary["model_sha256"] == private.summary["model_sha256"]
    assert clear.summary["events_sha256"] == private.summary["events_sha256"]
    with pytest.raises(InputError, match="no messages to explain"):
        list(explained_sum(clear))


def test_each_round_the_aggregate_is_the_plain_mean_within_a_step(
    boston_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    apart: list[float] = []
    taken: list[tuple[Update, float]] = []
    take, result = secure_sum.SecureSum.take, secure_sum.SecureSum.result

    def noting(self, part, places) -> None:
        taken.extend(part.rows())
        take(self, part, places)

    def compared(self) -> SecureMean:
        found = result(self)
        weight = sum(each for _, each in taken)
        for name, value in found.update.delta.items():
            plain = sum(update.delta[name].double() * each for update, each in taken) / weight
            apart.append(float((value - plain).abs().max()))
        taken.clear()
        return found

    monkeypatch.setattr(secure_sum.SecureSum, "take", noting)
    monkeypatch.setattr(secure_sum.SecureSum, "result", compared)
    simulate(experiment(boston_bundle), tmp_path / "run")
    assert len(apart) == COUNT * 8
    assert 0.0 < max(apart) <= FIXED_POINT.step


def test_the_last_sum_is_told_step_by_step(private: Run) -> None:
    lines = "\n".join(explained_sum(private))
    assert f"round {COUNT - 1}: the messages of Alice, Bob and the server" in lines
    for step in (
        "Alice -> the server: keys, 64 bytes",
        "the server -> Bob: roster",
        "Bob -> the server: shares",
        "Alice -> the server: masked, 6636 bytes",
        "Bob -> the server: unmask",
        "the sum of the vectors of Alice, Bob, and no other",
        "each can subtract its own",
    ):
        assert step in lines
    # 1,657 weights, the weight and the count of cut values, four bytes each.
    assert 4 * (1657 + 2) == 6636


def silent(line: str) -> None:
    """Nobody hears."""


@pytest.fixture(scope="module")
def emulated(boston_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("emulated") / "out"
    plan = EmulationPlan(out=out, speed=20.0)
    emulate(experiment(boston_bundle, "service.keep_updates=true"), plan, tell=silent)
    return out


def versions(state: Path) -> list[Tensors]:
    with sqlite3.connect(state / "service.sqlite") as database:
        rows = database.execute("SELECT weights_sha256 FROM models ORDER BY version").fetchall()
    database.close()
    return [tensors_from_bytes((state / "files" / sha256).read_bytes()) for (sha256,) in rows]


def test_in_processes_of_their_own_they_make_the_simulations_model(private: Run, emulated: Path) -> None:
    summary = json.loads((emulated / "summary.json").read_text())
    assert summary["versions"] == COUNT
    assert summary["model_sha256"] == private.summary["model_sha256"]


def test_each_version_can_be_made_again_of_the_recorded_messages_alone(emulated: Path) -> None:
    made = versions(emulated / "state")
    assert len(made) == COUNT + 1
    like = Update({name: torch.zeros_like(value) for name, value in made[0].items()}, {})
    vector = SecureVector(FIXED_POINT, like)
    for index in range(COUNT):
        file = emulated / "state" / "transcripts" / f"round-{index}.jsonl"
        total, members = recomputed_sum(Transcript.from_bytes(file.read_bytes()))
        assert members.tolist() == [0, 1]
        mean = vector.decode(total, shared_seed=round_seed(0, index))
        for name, value in made[index].items():
            # The server's step of SGD at rate 1, in its own precision.
            following = (value.double() + mean.update.delta[name]).float()
            assert torch.equal(following, made[index + 1][name])


def windows(tensors: Tensors, changed: Tensors) -> list[bytes]:
    """Stretches of four values, up to eight out of each tensor, of those that training changed."""
    parts = []
    for name, value in tensors.items():
        flat, moved = value.reshape(-1).contiguous(), changed[name].reshape(-1)
        starts = [start for start in range(0, len(flat) - 3, 4) if bool(moved[start : start + 4].all())]
        parts += [flat[start : start + 4].numpy().tobytes() for start in starts[:: max(1, len(starts) // 8)]]
    return parts


def found(parts: list[bytes], folder: Path) -> int:
    files = [file.read_bytes() for file in folder.rglob("*") if file.is_file()]
    return sum(any(part in data for data in files) for part in parts)


def test_the_server_holds_nothing_of_either(emulated: Path, private: Run) -> None:
    state, made = emulated / "state", versions(emulated / "state")
    searched = 0
    for name, folder in zip(("Alice", "Bob"), sorted((emulated / "devices").iterdir()), strict=True):
        own = tensors_from_bytes((folder / "model.safetensors").read_bytes())
        delta = {key: own[key] - made[COUNT - 1][key] for key in own}
        steps = {key: torch.round(value.double() / FIXED_POINT.step).int() for key, value in delta.items()}
        weight = int(private.devices.set_index("name")["num_training"][name])
        weighted = {key: value * weight for key, value in steps.items()}
        moved = {key: value != 0 for key, value in steps.items()}
        # What is searched for is there to be found: on the device itself.
        assert found(windows(own, moved), folder) == len(windows(own, moved)) > 20
        for secret in (own, delta, steps, weighted):
            assert found(windows(secret, moved), state) == 0
            log = (emulated / "service.log").read_bytes()
            assert not any(part in log for part in windows(secret, moved))
            searched += len(windows(secret, moved))
    assert searched > 150
    # And the search would find it on the server: the model that both made is there.
    everything = {key: torch.ones_like(value, dtype=torch.bool) for key, value in made[COUNT].items()}
    assert found(windows(made[COUNT], everything), state) == len(windows(made[COUNT], everything)) > 20


def test_reports_say_nothing_of_the_work(emulated: Path) -> None:
    with sqlite3.connect(emulated / "state" / "service.sqlite") as database:
        columns = "num_examples, steps, examples_held, train_loss, metric_global, metric_personalised, bytes"
        rows = database.execute(f"SELECT {columns} FROM reports").fetchall()
        notes = [note for (note,) in database.execute("SELECT note FROM decisions WHERE kind = 'check_in'").fetchall()]
    database.close()
    assert rows == [(1, 1, 1, 0.0, None, None, 64)] * (2 * COUNT)
    # Nor does a check-in: what a phone says of itself is about its battery, its memory and its day.
    assert len(notes) >= 2 * COUNT
    assert all("examples" not in note and "battery_ratio" in note for note in notes)


def test_a_sum_of_one_is_refused() -> None:
    with pytest.raises(InputError, match="needs rounds of 2 reports or more"):
        Experiment.load("boston-two-phones-private", ["rounds.minimum_ratio=0.5"])


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ("rounds.policy=buffered", "a buffer has none"),
        ("aggregation={rule='median'}", "it compares single updates"),
        ("codec={name='top_k', ratio=0.1}", "what each rounds or chooses for itself cannot"),
        ("codec={name='quantised', bits=8}", "what each rounds or chooses for itself cannot"),
        ("service.max_update_norm=1.0", "checked on single updates"),
        ("service.max_num_examples=5", "checked on single reports"),
        ("rounds.recording=log", "holds no updates to be replayed"),
        ("release={gate='evaluation', evaluation_reports=2, canary_ratio=0.0}", "each device tells what it finds"),
        ("rounds={selection='oort', selection_window_s=60.0, cohort=2, minimum_ratio=1.0}", "learns from each phone's"),
    ],
)
def test_what_sums_cannot_do_is_refused_with_the_reason(setting: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        Experiment.load("boston-two-phones-private", [setting])


def test_batch_norm_statistics_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "normed.py").write_text(NORMED)
    monkeypatch.syspath_prepend(tmp_path)
    table = {"task": {"name": "normed:make_task"}, "training": {"learning_rate": 0.1, "batch_size": 4}}
    settings = ["secure_aggregation.enabled=true", "fleet.devices=2", "rounds.cohort=2", "rounds.count=1"]
    normed = Experiment.from_table(table).with_settings(*settings)
    with pytest.raises(InputError, match="batch-norm statistics"):
        simulate(normed, tmp_path / "run")
    assert not (tmp_path / "run").exists()


NORMED = """
import torch
from pocketfleet.training.examples import Examples


class Normed:
    name = "normed"

    def make_model(self):
        return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 1))

    def loss(self, output, target):
        return (output - target).square().mean(dim=-1)

    def metrics(self, output, target):
        return {"mse": (output - target).square().mean(dim=-1)}

    def train_examples(self):
        return Examples(torch.arange(48.0).reshape(16, 3), torch.ones(16, 1))

    test_examples = train_examples


def make_task():
    return Normed()
"""
