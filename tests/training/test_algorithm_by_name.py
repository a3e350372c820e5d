import re
from pathlib import Path
from typing import Any

import pytest

from pocketfleet.errors import InputError
from pocketfleet.training.algorithm import Algorithm
from pocketfleet.training.algorithm_by_name import load_algorithm
from pocketfleet.training.algorithms.ditto import Ditto
from pocketfleet.training.algorithms.fedavg import FedAvg
from pocketfleet.training.algorithms.feddyn import FedDyn
from pocketfleet.training.algorithms.fedper import FedPer
from pocketfleet.training.algorithms.fedprox import FedProx
from pocketfleet.training.algorithms.fedsgd import FedSgd
from pocketfleet.training.algorithms.scaffold import Scaffold
from pocketfleet.training.server_optimizer import ServerMomentum, ServerSgd

SERVER = ServerMomentum(momentum=0.5)


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("fedavg", {}, FedAvg(server_optimizer=SERVER)),
        ("fedprox", {"proximal_mu": 0.5}, FedProx(server_optimizer=SERVER, proximal_mu=0.5)),
        ("fedsgd", {}, FedSgd(server_optimizer=SERVER)),
        ("scaffold", {}, Scaffold(server_optimizer=SERVER)),
        ("feddyn", {"alpha": 0.5}, FedDyn(alpha=0.5)),
        ("ditto", {"personal_mu": 0.5}, Ditto(server_optimizer=SERVER, personal_mu=0.5)),
        ("fedper", {"private": ("head.*",)}, FedPer(server_optimizer=SERVER, private=("head.*",))),
    ],
)
def test_a_packaged_one(name: str, options: dict[str, Any], expected: Algorithm) -> None:
    found = load_algorithm(name, options, server_optimizer=SERVER)
    assert found == expected
    assert found.name == name


OWN = """
from dataclasses import dataclass
from pocketfleet.training.algorithms.fedavg import FedAvg

@dataclass(frozen=True, slots=True, kw_only=True)
class Own(FedAvg):
    strength: float = 0.0
    name: str = "own"

def make_algorithm(server_optimizer, strength=1.0):
    return Own(server_optimizer=server_optimizer, strength=strength)

class Half:
    name, init, step_settings = "half", None, None

def make_half(server_optimizer):
    return Half()
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_algorithms.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(__import__("sys").modules, "my_algorithms", raising=False)


@pytest.mark.usefixtures("own")
def test_ones_own_is_called_with_the_options() -> None:
    found = load_algorithm("my_algorithms:make_algorithm", {"strength": 3.0}, server_optimizer=SERVER)
    assert (found.name, getattr(found, "strength", None)) == ("own", 3.0)


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "fedsdg",
            {},
            "algorithm.name must be one of ['ditto', 'fedavg', 'feddyn', 'fedper', 'fedprox', 'fedsgd', 'scaffold'] or "
            "a path such as \"my_module:make_algorithm\", got 'fedsdg'",
        ),
        (
            "my_algorithms:make_algorithm",
            {"power": 2},
            "'my_algorithms:make_algorithm' must be a function called with server_optimizer, power: ",
        ),
        (
            "my_algorithms:make_half",
            {},
            "'my_algorithms:make_half' returned Half, which is no algorithm: it lacks ['broadcast', 'client_start', "
            "'client_update', 'device_init', 'server_update', 'weighting']",
        ),
        ("my_algorithms:make_whole", {}, "algorithm.name: module 'my_algorithms' has no 'make_whole'"),
    ],
)
def test_what_names_none(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(message)}"):
        load_algorithm(name, options, server_optimizer=ServerSgd())
