import sys
from pathlib import Path

import pytest
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

from pocketfleet.device_sim.flower_app import opened_app
from pocketfleet.errors import InputError

APPS = Path(__file__).parents[1] / "flower_apps"
PYPROJECT = """
[project]
name = "mine"
version = "1.0.0"

[tool.flwr.app]
publisher = "someone"

[tool.flwr.app.components]
serverapp = "mine_server:app"
clientapp = "mine_client:app"

[tool.flwr.app.config]
rounds = 2
client.rate = 0.5
"""


def written(folder: Path, *, pyproject: str = PYPROJECT, client: str = "", server: str = "") -> Path:
    (folder / "pyproject.toml").write_text(pyproject)
    (folder / "mine_client.py").write_text(client or "from flwr.clientapp import ClientApp\napp = ClientApp()\n")
    (folder / "mine_server.py").write_text(server or "from flwr.serverapp import ServerApp\napp = ServerApp()\n")
    return folder


def test_an_app_is_imported_configured_and_forgotten(tmp_path: Path) -> None:
    path = list(sys.path)
    with opened_app(written(tmp_path), {"client.rate": 0.25}) as app:
        assert isinstance(app.server_app, ServerApp)
        assert isinstance(app.client_app, ClientApp)
        assert (app.name, app.run_config) == ("mine", {"rounds": 2, "client.rate": 0.25})
        assert app.bundle_bytes > len(PYPROJECT) / 4
        assert "mine_client" in sys.modules
    assert "mine_client" not in sys.modules
    assert sys.path == path


def test_two_apps_whose_modules_have_the_same_names_do_not_mix() -> None:
    from flwr.clientapp import ClientApp

    found = []
    for name in ("messages", "numpy_clients"):
        with opened_app(APPS / name, {}) as app:
            found.append(sys.modules["logistic.client_app"].__file__)
            assert isinstance(app.client_app, ClientApp)
    assert [Path(str(file)).parents[1].name for file in found] == ["messages", "numpy_clients"]


def test_a_folder_without_an_app_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no Flower app: there is no pyproject\.toml"), opened_app(tmp_path, {}):
        pass


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"pyproject": "[project"}, r"pyproject\.toml cannot be read"),
        ({"pyproject": "[tool.flwr.app]\n"}, r"has no \[project\] with a name"),
        (
            {"pyproject": PYPROJECT.replace('clientapp = "mine_client:app"\n', "")},
            r'must name the ClientApp as clientapp = "module:app", got nothing',
        ),
        (
            {"pyproject": PYPROJECT.replace("mine_server:app", "mine_server")},
            r"must name the ServerApp as serverapp = \"module:app\", got 'mine_server'",
        ),
        (
            {"pyproject": PYPROJECT.replace('publisher = "someone"', "")},
            r'flwr cannot bundle the app in .*"publisher" missing',
        ),
        (
            {"client": "import nothing_of_that_name\n"},
            r"clientapp 'mine_client:app' .* cannot be imported: ModuleNotFoundError",
        ),
        ({"client": "other = 1\n"}, r"clientapp 'mine_client:app' of the app in .* cannot be imported: AttributeError"),
        ({"client": "app = 7\n"}, r"clientapp 'mine_client:app' .* must be a flwr ClientApp, got int"),
        ({"server": "app = 'no'\n"}, r"serverapp 'mine_server:app' .* must be a flwr ServerApp, got str"),
    ],
)
def test_what_is_wrong_with_an_app_is_told(tmp_path: Path, changed: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=f"(?s){message}"), opened_app(written(tmp_path, **changed), {}):
        pass


def test_a_key_that_the_app_has_not_is_refused(tmp_path: Path) -> None:
    message = r"--run-config rate: no such key in .*; allowed: rounds, client\.rate"
    with pytest.raises(InputError, match=message), opened_app(written(tmp_path), {"rate": 1.0}):
        pass
