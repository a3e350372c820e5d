"""A Flower app in a folder: what its pyproject.toml names, imported as Flower imports it, and its run configuration."""

import contextlib
import importlib
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pocketfleet.device_sim.flower_api import app_bundle_bytes, check_installed
from pocketfleet.errors import InputError

__all__ = ["FlowerApp", "opened_app"]

_COMPONENTS = {"serverapp": "ServerApp", "clientapp": "ClientApp"}


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowerApp:
    """An app, ready to run.

    Attributes:
        name: of the project.
        server_app: a ``flwr.serverapp.ServerApp``.
        client_app: a ``flwr.clientapp.ClientApp``.
        run_config: what its pyproject.toml says, and what was changed; nested keys joined by dots.
        bundle_bytes: of the app's bundle.
    """

    name: str
    server_app: Any
    client_app: Any
    run_config: Mapping[str, Any]
    bundle_bytes: int


@contextlib.contextmanager
def opened_app(app_dir: Path, changes: Mapping[str, Any]) -> Iterator[FlowerApp]:
    """An app while it runs; its modules are forgotten afterwards, since another app's may have the same names.

    Args:
        app_dir: the folder with its pyproject.toml.
        changes: of its run configuration, by dotted key.

    Raises:
        InputError: Flower is not installed, the folder holds no app, or a component cannot be imported.
    """
    check_installed()
    table = _pyproject(app_dir)
    name = str(table["project"]["name"])
    references = _references(app_dir, table)
    run_config = _run_config(app_dir, table, changes)
    bundle_bytes = app_bundle_bytes(app_dir)
    folder = str(app_dir.resolve())
    before = set(sys.modules)
    sys.path.insert(0, folder)
    try:
        components = {key: _imported(app_dir, key, reference) for key, reference in references.items()}
        yield FlowerApp(
            name=name,
            server_app=components["serverapp"],
            client_app=components["clientapp"],
            run_config=run_config,
            bundle_bytes=bundle_bytes,
        )
    finally:
        if folder in sys.path:
            sys.path.remove(folder)
        for module in set(sys.modules) - before:
            file = getattr(sys.modules[module], "__file__", None)
            if file is not None and Path(file).is_relative_to(folder):
                del sys.modules[module]


def _pyproject(app_dir: Path) -> dict[str, Any]:
    path = app_dir / "pyproject.toml"
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as exc:
        raise InputError(
            f"{app_dir} holds no Flower app: there is no pyproject.toml; name the folder that you give to flwr run"
        ) from exc
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
        raise InputError(f"{path} cannot be read: {exc}") from exc
    if not isinstance(table.get("project", {}).get("name"), str):
        raise InputError(f"{path} has no [project] with a name, which a Flower app needs")
    return table


def _references(app_dir: Path, table: Mapping[str, Any]) -> dict[str, str]:
    components = table.get("tool", {}).get("flwr", {}).get("app", {}).get("components", {})
    for key, kind in _COMPONENTS.items():
        reference = components.get(key)
        if not isinstance(reference, str) or reference.count(":") != 1 or not all(reference.split(":")):
            came = "nothing" if reference is None else repr(reference)
            raise InputError(
                f"{app_dir / 'pyproject.toml'}: [tool.flwr.app.components] must name the {kind} as "
                f'{key} = "module:app", got {came}'
            )
    return {key: str(components[key]) for key in _COMPONENTS}


def _run_config(app_dir: Path, table: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    config = _flat(table["tool"]["flwr"]["app"].get("config", {}))
    unknown = [key for key in changes if key not in config]
    if unknown:
        allowed = ", ".join(config) or "none: the app has no configuration"
        raise InputError(
            f"--run-config {unknown[0]}: no such key in [tool.flwr.app.config] of {app_dir / 'pyproject.toml'}; "
            f"allowed: {allowed}"
        )
    return config | dict(changes)


def _flat(table: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in table.items():
        flat |= _flat(value, f"{above}{key}.") if isinstance(value, dict) else {f"{above}{key}": value}
    return flat


def _imported(app_dir: Path, key: str, reference: str) -> Any:  # noqa: ANN401 - flwr's ServerApp or ClientApp
    from flwr.clientapp import ClientApp
    from flwr.serverapp import ServerApp

    module, _, attribute = reference.partition(":")
    where = f"{key} {reference!r} of the app in {app_dir}"
    try:
        found = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except Exception as exc:
        raise InputError(f"{where} cannot be imported: {type(exc).__name__}: {exc}") from exc
    kind = {"serverapp": ServerApp, "clientapp": ClientApp}[key]
    if not isinstance(found, kind):
        raise InputError(f"{where} must be a flwr {_COMPONENTS[key]}, got {type(found).__name__}")
    return found
