"""A user's own model, data and folders: the wheel installed, nothing of the source tree in sight."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# A user's shell: no path into the source tree.
SHELL = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

MODULE = """
from pathlib import Path
import pandas as pd
import torch
from torch import nn
from pocketfleet.training.examples import Examples
import training.layers  # the user's own folder of that name
import export           # and that one

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden, self.out = nn.Linear(2, 8), training.layers.Head(8)
    def forward(self, x):
        return self.out(torch.tanh(self.hidden(x)))

class Mine:
    name = "mine"
    def __init__(self):
        table = pd.read_csv(Path(__file__).with_name("mine.csv"))
        values = torch.tensor(table.to_numpy(), dtype=torch.float32)
        self.examples = Examples(values[:, :2], values[:, 2:])
    def make_model(self): return Net()
    def loss(self, output, target): return torch.nn.functional.huber_loss(output, target, reduction="none").mean(dim=1)
    def metrics(self, output, target): return {"mae": (output - target).abs().mean(dim=1)}
    def train_examples(self): return self.examples.take(torch.arange(0, 160))
    def test_examples(self): return self.examples.take(torch.arange(160, 200))

def make_task(): return Mine()
"""
EXPERIMENT = """
[task]
name = "mytask:make_task"
[fleet]
devices = 8
[training]
epochs = 3
batch_size = 8
learning_rate = 0.05
[rounds]
count = 12
cohort = 4
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``pocketfleet`` in a fresh environment: the wheel alone, its dependencies borrowed from this one."""
    folder = tmp_path_factory.mktemp("installed")
    source = folder / "source"
    shutil.copytree(ROOT / "pocketfleet", source / "pocketfleet", ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source)
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(source)],
        check=True,
        capture_output=True,
    )
    (wheel,) = folder.glob("pocketfleet-*.whl")
    venv.create(folder / "env", with_pip=True)
    python = folder / "env" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", str(wheel)], check=True, env=SHELL)
    (site,) = (folder / "env").glob("lib/python*/site-packages")
    (site / "borrowed.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return folder / "env" / "bin" / "pocketfleet"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The user's folder."""
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "__init__.py").write_text("")
    (tmp_path / "training" / "layers.py").write_text(
        "from torch import nn\nclass Head(nn.Linear):\n    def __init__(self, n): super().__init__(n, 1)\n"
    )
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "__init__.py").write_text("")
    (tmp_path / "mytask.py").write_text(MODULE)
    (tmp_path / "mytask.toml").write_text(EXPERIMENT)
    rows = [f"{i / 100},{(i * 7 % 200) / 100},{i / 50 - (i * 7 % 200) / 100}" for i in range(200)]
    (tmp_path / "mine.csv").write_text("\n".join(["a,b,c", *rows]) + "\n")
    return tmp_path


def test_a_users_task_is_exported_verified_and_simulated(program: Path, place: Path) -> None:
    def call(*arguments: str) -> str:
        done = subprocess.run([program, *arguments], cwd=place, env=SHELL, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = subprocess.run(
        [program.with_name("python"), "-c", "import pocketfleet; print(pocketfleet.__file__)"],
        cwd=place,
        env=SHELL,
        check=False,
        capture_output=True,
        text=True,
    )
    assert where.returncode == 0, where.stderr
    assert str(program.parents[1]) in where.stdout  # the wheel's, not the source tree's
    call("export", "mytask:make_task", "--out", "bundle", "--max-batch", "8")
    assert sorted(file.name for file in (place / "bundle").iterdir()) == [
        "evaluate.onnx",
        "manifest.json",
        "model.pte",
        "predict.onnx",
        "train_step.onnx",
        "weights.safetensors",
    ]
    rows = json.loads(call("verify", "bundle", "--json"))
    assert {row["runtime"] for row in rows} == {"executorch", "onnx"}
    summary = json.loads(call("simulate", "mytask.toml", "--set", "engine.processes=2", "--json"))
    assert summary["rounds"] == 12
    assert summary["metrics"]["last"]["test_mae"] < 0.5 * summary["metrics"]["initial"]["test_mae"]
    assert (place / "runs" / "mytask" / "summary.json").is_file()
    # The files that come with the package are in the wheel too.
    call("init", "flats")
    assert len(json.loads(call("list", "phones", "--json"))) >= 12
    assert "boston-two-phones" in call("list", "experiments")
