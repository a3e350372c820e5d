"""What a user gets wrong is told in one paragraph that says what to do; exit code 2, nothing half-written."""

import json
import re
import shutil
from pathlib import Path

import pytest

from pocketfleet import Bundle

TASK = """
import torch
from torch import nn
from pocketfleet.training.examples import Examples

class Task:
    name = "mine"
    def make_model(self): return nn.Linear(2, 1)
    def loss(self, output, target): return LOSS
    def metrics(self, output, target): return {"mse": (output - target).square().mean(dim=1)}
    def train_examples(self): return Examples(torch.arange(40.0).sin().reshape(20, 2), torch.ones(20, 1))
    def test_examples(self): return Examples(torch.ones(5, 2), torch.ones(5, 1))

def make_task(): return Task()
"""


def check(called, *patterns: str) -> None:
    assert called.code == 2, called
    assert called.err.startswith("pocketfleet: ")
    assert "Traceback" not in called.err
    assert len(called.err.strip().splitlines()) == 1
    for pattern in patterns:
        assert re.search(pattern, called.err), (pattern, called.err)
    assert not Path("runs").exists() or not list(Path("runs").iterdir())


def test_a_missing_experiment(pocketfleet) -> None:
    check(pocketfleet("simulate", "mnist-flet"), "no experiment 'mnist-flet'", "did you mean 'mnist-fleet'")


def test_a_malformed_experiment(pocketfleet) -> None:
    Path("bad.toml").write_text("seed = = 1\n")
    check(pocketfleet("simulate", "bad.toml"), "bad.toml is no TOML file", "line 1")


@pytest.mark.parametrize(
    ("setting", "patterns"),
    [
        ("rounds.cohrt=3", [r"unknown key rounds.cohrt", r"did you mean 'cohort'", r"allowed here: .*deadline_s"]),
        ("fleeet.devices=3", [r"unknown key fleeet", r"did you mean 'fleet'"]),
        ("fleet.devices=0", [r"fleet.devices should be greater than or equal to 1, got 0"]),
        ("rounds.cohort=300", [r"rounds.cohort must be 1\.\.200 \(the fleet's size\), got 300"]),
        ("rounds.policy=eager", [r"rounds.policy should be 'synchronous' or 'buffered', got 'eager'"]),
        ("engine.planned=auto", [r"unknown key engine.planned"]),
        ("engine.plan=fastest", [r"engine.plan should be 'auto', 'each'"]),
        ("training.optimizer=lion", [r"training.optimizer should be 'sgd', 'adam' or 'adamw', got 'lion'"]),
        ("training.learning_rate=fast", [r"training.learning_rate should be a valid number, got 'fast'"]),
        ("training.learning_rate=nan", [r"training.learning_rate"]),
        ("task.name=mnst", [r"task.name must be one of \['arrow_dataset', 'boston'.*'mnist'", r"got 'mnst'"]),
        ("task.name=nowhere:make", [r"task.name: no module named 'nowhere'"]),
        ("task.options.split=3", [r"could not be made with options \{'split': 3\}"]),
        ("fleet.mix=mars", [r"fleet.mix", r"mars"]),
        ("fleet.network=dial-up", [r"fleet.network must be one of .*home-wifi"]),
        ("fleet.availability=sometimes", [r"fleet.availability", r"flash-2020"]),
        ('fleet.always=["asleep"]', [r"fleet.always.0 should be 'idle', 'charging' or 'wifi', got 'asleep'"]),
        ("fleet.time_zones={CET=1.0}", [r"fleet.time_zones must name hours ahead of UTC from -12 to 14", r"got 'CET'"]),
        ('fleet.time_zones={"1"=-1.0}', [r"fleet.time_zones must give each offset a weight above 0, got -1 at '1'"]),
        ('fleet.time_zones={"1"="half"}', [r"fleet.time_zones.1 should be a valid number, got 'half'"]),
        ("fleet.memory_moments=often", [r"fleet.memory_moments should be a valid boolean, got 'often'"]),
        ('fleet.phones=["Pixel 8"]', [r"fleet.phones must name one a device \(200\) or none, got 1"]),
        ("algorithm.name=fedsdg", [r"algorithm.name must be one of .*fedsgd.*, got .fedsdg."]),
        ("partition.kind=natural", [r"device_examples"]),
        ("data.arrival=use", [r"data.arrival \"use\" needs data.examples_per_hour above 0, got 0"]),
        ("data.arrival=daily", [r"data.arrival should be 'at_start', 'use' or 'task', got 'daily'"]),
        ("data.examples_per_hour=3.0", [r'is for data.arrival "use", which is "at_start": leave one out']),
        ("data.retention_days=3.0", [r"data.retention_days is for data that arrives"]),
        ("data.retention_days=-1.0", [r"data.retention_days should be greater than or equal to 0"]),
        ("data={arrival='use', examples_per_hour=1.0}", [r"those of fleet.availability .always. never are"]),
        ("eligibility.min_examples=0", [r"eligibility.min_examples should be greater than or equal to 1, got 0"]),
        ("seed=18446744073709551616", [r"seed should be less than 9223372036854775808"]),
        ("seed=-1", [r"seed should be greater than or equal to 0, got -1"]),
        ("rounds", [r"--set takes key=value"]),
    ],
)
def test_a_bad_setting(setting: str, patterns: list[str], pocketfleet) -> None:
    check(pocketfleet("simulate", "mnist-fleet", "--set", setting), *patterns)


def test_phones_are_named_or_drawn(pocketfleet) -> None:
    called = pocketfleet("simulate", "boston-two-phones", "--set", "fleet.mix=mine.csv")
    check(called, "fleet.phones names every phone and fleet.mix draws them: leave one out")


def test_skewed_labels_need_labels(pocketfleet) -> None:
    check(
        pocketfleet("simulate", "boston-fleet", "--set", "partition.kind=dirichlet"),
        "needs integer targets",
        'use "iid" or "quantity"',
    )


@pytest.mark.parametrize(
    ("loss", "pattern"),
    [
        ("(output - target).square()", r"one value an example, shape \(3,\).*got \(3, 1\)"),
        ("(output.detach() - target).square().mean(dim=1)", "has no gradient"),
        ("(output - target[:, 0, 0]).square()", "fails on an output of shape"),
    ],
)
@pytest.mark.parametrize("command", ["simulate", "export"])
def test_a_task_whose_loss_is_wrong(command: str, loss: str, pattern: str, pocketfleet, monkeypatch) -> None:
    # Each has a module name of its own: Python imports a name once.
    name = f"mine_{abs(hash((command, loss)))}"
    Path(f"{name}.py").write_text(TASK.replace("LOSS", loss))
    monkeypatch.syspath_prepend(str(Path.cwd()))
    if command == "export":
        called = pocketfleet("export", f"{name}:make_task", "--out", "bundle")
    else:
        called = pocketfleet("simulate", "boston-two-phones", "--set", f"task.name={name}:make_task")
    check(called, pattern)
    assert not Path("bundle").exists()


def test_a_task_whose_file_is_missing(pocketfleet, monkeypatch) -> None:
    assert pocketfleet("init", "flats_gone").code == 0
    Path("flats_gone.csv").unlink()
    monkeypatch.syspath_prepend(str(Path.cwd()))
    for command in (["simulate", "flats_gone.toml"], ["export", "flats_gone:make_task", "--out", "bundle"]):
        check(pocketfleet(*command), "could not be made", "FileNotFoundError", r"flats_gone\.csv")
    assert not Path("bundle").exists()


def test_a_model_that_draws_random_numbers(pocketfleet, monkeypatch) -> None:
    text = TASK.replace("LOSS", "(output - target).square().mean(dim=1)")
    text = text.replace("nn.Linear(2, 1)", "nn.Sequential(nn.Linear(2, 9), nn.RReLU(), nn.Linear(9, 1))")
    Path("mine_noise.py").write_text(text)
    monkeypatch.syspath_prepend(str(Path.cwd()))
    check(
        pocketfleet("simulate", "boston-two-phones", "--set", "task.name=mine_noise:make_task"),
        r"draws random numbers by aten.rrelu_with_noise.*, which is no dropout",
        "take that layer out",
    )


def test_batch_norm_on_a_single_example_left_over(pocketfleet, monkeypatch, boston_bundle: Bundle) -> None:
    # 20 examples, two phones, 8 of each 10 train; batches of 7 leave one over.
    text = TASK.replace("LOSS", "(output - target).square().mean(dim=1)")
    text = text.replace("nn.Linear(2, 1)", "nn.Sequential(nn.Linear(2, 9), nn.BatchNorm1d(9), nn.Linear(9, 1))")
    Path("mine_norm.py").write_text(text)
    monkeypatch.syspath_prepend(str(Path.cwd()))
    called = pocketfleet(
        "simulate",
        "boston-two-phones",
        *("--set", "task.name=mine_norm:make_task", "--set", "training.batch_size=7", "--quiet", "--out", "run"),
    )
    check(called, "batch of 1 of the 8 examples of device 0", "training.batch_size that leaves none over")


def test_a_model_that_returns_a_tuple(pocketfleet, monkeypatch) -> None:
    text = TASK.replace("LOSS", "(output - target).square().mean(dim=1)").replace("nn.Linear(2, 1)", "nn.GRU(2, 1)")
    Path("mine_tuple.py").write_text(text)
    monkeypatch.syspath_prepend(str(Path.cwd()))
    check(pocketfleet("export", "mine_tuple:make_task", "--out", "bundle"), "must return one tensor, got tuple")


RECURRENT = """
class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.LAYER, nn.Linear(4, 1)
    def forward(self, x):
        return self.head(CALL).mean(dim=1)
"""


@pytest.mark.parametrize(
    ("layer", "call"),
    [
        ("Linear(2, 4)", "self.layer(torch.fft.fft(x).abs())"),
        ("Linear(2, 4)", "self.layer(torch.linalg.solve(torch.eye(2) + x[:, :, None] * x[:, None], x))"),
    ],
)
def test_operators_that_no_runtime_has_are_refused(layer: str, call: str, pocketfleet, monkeypatch) -> None:
    name = f"mine_operator_{abs(hash(call))}"
    text = TASK.replace("LOSS", "(output - target).square().mean(dim=1)").replace("nn.Linear(2, 1)", "Recurrent()")
    text = text.replace("class Task", RECURRENT.replace("LAYER", layer).replace("CALL", call) + "\nclass Task")
    Path(f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(Path.cwd()))
    called = pocketfleet("export", f"{name}:make_task", "--out", "bundle", "--max-batch", "4")
    assert called.code == 2, called
    # A runtime may have said more before.
    message = called.err[called.err.index("pocketfleet: ") :]
    assert re.search(r"cannot be exported for .*docs/limits\.md", message), called
    assert [path.name for path in Path().iterdir() if "bundle" in path.name] == []


@pytest.mark.parametrize(
    ("old", "new", "pattern"),
    [
        ("return LOSS", "return (output - target).square().mean(dim=1) / 0", "loss .* is inf on its first examples"),
        ('"mse": ', '"loss": ', "called 'loss', the loss's own name"),
    ],
)
def test_a_loss_or_metric_that_cannot_be(old: str, new: str, pattern: str, pocketfleet, monkeypatch) -> None:
    name = f"mine_{abs(hash(new))}"
    text = TASK.replace(old, new).replace("LOSS", "(output - target).square().mean(dim=1)")
    Path(f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(Path.cwd()))
    check(pocketfleet("simulate", "boston-two-phones", "--set", f"task.name={name}:make_task"), pattern)


NATURAL = """
    def device_examples(self, device):
        users = {0: 2, 1: 3} if WRONG else {0: 2}
        return Examples(torch.ones(8, users[device]), torch.ones(8, 1))
"""


@pytest.mark.parametrize(
    ("wrong", "patterns"),
    [
        ("False", [r"device_examples\(1\) of task 'mine' failed: KeyError: 1"]),
        ("True", [r"device_examples\(1\) gives x of shape \(8, 3\)", r"other than device_examples\(0\): \(8, 2\)"]),
    ],
)
def test_users_that_are_missing_or_not_alike(wrong: str, patterns: list[str], pocketfleet, monkeypatch) -> None:
    text = TASK.replace("LOSS", "(output - target).square().mean(dim=1)")
    text = text.replace("def make_task", NATURAL.replace("WRONG", wrong) + "\ndef make_task")
    Path(f"mine_natural_{wrong}.py").write_text(text)
    monkeypatch.syspath_prepend(str(Path.cwd()))
    settings = ["--set", f"task.name=mine_natural_{wrong}:make_task", "--set", "partition.kind=natural"]
    check(pocketfleet("simulate", "boston-two-phones", *settings), *patterns)


def test_nesterov_needs_momentum(pocketfleet) -> None:
    check(pocketfleet("export", "boston", "--out", "bundle", "--nesterov"), "--nesterov needs a --momentum above 0")
    assert not Path("bundle").exists()


def test_an_output_below_a_file(pocketfleet) -> None:
    Path("file").write_text("")
    check(pocketfleet("simulate", "boston-two-phones", "--out", "file/run"), "file is a file; name a folder")


def test_a_run_resumes_without_the_bundle_that_it_was_started_with(pocketfleet, boston_bundle: Bundle) -> None:
    shutil.copytree(boston_bundle.path, "given")
    settings = ["--set", "task.bundle=given", "--set", "rounds.count=2", "--out", "run", "--quiet"]
    assert pocketfleet("simulate", "boston-two-phones", "--set", "training.learning_rate=10.0", *settings).code == 2
    shutil.rmtree("given")
    called = pocketfleet("simulate", "--resume", "run", "--set", "training.learning_rate=0.001", "--json")
    assert called.code == 0, called.err
    assert json.loads(called.out)["rounds"] == 2
    # How a finished run would be computed further does not matter any more.
    assert pocketfleet("simulate", "--resume", "run", "--set", "engine.processes=2", "--quiet").code == 0


def test_an_experiment_edited_in_its_run_directory(pocketfleet, boston_bundle: Bundle) -> None:
    settings = ["--set", f"task.bundle={boston_bundle.path}", "--set", "rounds.count=2", "--out", "run", "--quiet"]
    assert pocketfleet("simulate", "boston-two-phones", "--set", "training.learning_rate=10.0", *settings).code == 2
    edited = Path("run/experiment.toml").read_text().replace("deadline_s = 600.0", "deadline_s = 60.0")
    Path("run/experiment.toml").write_text(edited)
    check(pocketfleet("simulate", "--resume", "run", "--quiet"), "run/experiment.toml was edited", "rounds")


def test_an_output_folder_in_use(pocketfleet, boston_bundle: Bundle) -> None:
    Path("mine").mkdir()
    Path("mine/thesis.txt").write_text("years of work")
    check(pocketfleet("simulate", "boston-two-phones", "--out", "mine", "--force"), "no run of pocketfleet")
    check(pocketfleet("export", "boston", "--out", "mine"), "mine")
    assert Path("mine/thesis.txt").read_text() == "years of work"
    assert len(list(Path("mine").iterdir())) == 1


def test_a_run_is_not_replaced_by_accident(pocketfleet, boston_bundle: Bundle) -> None:
    arguments = ["simulate", "boston-two-phones", "--set", f"task.bundle={boston_bundle.path}", "--out", "run"]
    arguments += ["--set", "rounds.count=2"]
    assert pocketfleet(*arguments, "--quiet").code == 0
    before = Path("run/summary.json").read_bytes()
    check(pocketfleet(*arguments), "holds a run already", "--resume", "--force")
    assert Path("run/summary.json").read_bytes() == before
    assert pocketfleet(*arguments, "--force", "--quiet").code == 0


@pytest.mark.parametrize("file", ["model.pte", "train_step.onnx", "weights.safetensors"])
def test_a_tampered_bundle(file: str, pocketfleet, boston_bundle: Bundle) -> None:
    shutil.copytree(boston_bundle.path, "bundle")
    content = bytearray(Path("bundle", file).read_bytes())
    content[len(content) // 2] ^= 1
    Path("bundle", file).write_bytes(bytes(content))
    check(pocketfleet("verify", "bundle"), rf"{file} was altered", "export it again")
    check(pocketfleet("simulate", "boston-two-phones", "--set", "task.bundle=bundle"), rf"{file} was altered")


def test_no_bundle(pocketfleet) -> None:
    check(pocketfleet("verify", "nowhere"), "nowhere is no bundle", "pocketfleet export")


def test_a_bundle_of_another_task(pocketfleet, boston_bundle: Bundle) -> None:
    check(
        pocketfleet("simulate", "mnist-fleet", "--set", f"task.bundle={boston_bundle.path}"),
        "task.bundle",
        "leave task.bundle out",
    )


def test_divergence_leaves_a_run_that_can_be_resumed(pocketfleet, boston_bundle: Bundle) -> None:
    arguments = ["--set", f"task.bundle={boston_bundle.path}", "--set", "rounds.count=5", "--out", "run"]
    called = pocketfleet("simulate", "boston-two-phones", "--set", "training.learning_rate=10.0", "--quiet", *arguments)
    check(called, "training diverged in round 0", "--resume RUN --set training.learning_rate")
    assert not Path("run/summary.json").exists()
    assert pocketfleet("simulate", "--resume", "run", "--quiet").code == 2
    called = pocketfleet("simulate", "--resume", "run", "--set", "training.learning_rate=0.001", "--json")
    assert called.code == 0
    assert json.loads(called.out)["rounds"] == 5


def test_resume_cannot_change_what_is_settled(pocketfleet, boston_bundle: Bundle) -> None:
    check(pocketfleet("simulate", "--resume", "run"), "holds no run")
    arguments = ["--set", f"task.bundle={boston_bundle.path}", "--set", "rounds.count=1", "--out", "run", "--quiet"]
    assert pocketfleet("simulate", "boston-two-phones", *arguments).code == 0
    check(pocketfleet("simulate", "--resume", "run", "--set", "seed=4"), "seed is settled")
    check(pocketfleet("simulate", "--resume", "run", "--set", "rounds.count=4"), "has ended")
    check(pocketfleet("simulate", "boston-two-phones", "--resume", "run"), "an experiment, or --resume")
    check(pocketfleet("simulate"), "an experiment, or --resume")


def test_our_own_failure_is_exit_code_1(pocketfleet, monkeypatch) -> None:
    monkeypatch.setattr("pocketfleet.experiment.packaged_experiments", lambda: 1 / 0)
    called = pocketfleet("list", "experiments")
    assert called.code == 1
    assert "internal error (ZeroDivisionError; --debug shows where)" in called.err
    assert "Traceback" not in called.err
    assert "Traceback" in pocketfleet("list", "experiments", "--debug").err
