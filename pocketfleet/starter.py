"""The three files that a user starts a task of their own from."""

import keyword
import sys
from importlib import resources
from pathlib import Path

import numpy as np

from pocketfleet.errors import InputError
from pocketfleet.training.draws import draw_key, normal, uniform

__all__ = ["write_starter"]

_ROWS = 400


def write_starter(name: str, folder: Path) -> list[Path]:
    """Write ``name.py``, ``name.csv`` and ``name.toml`` into ``folder``; returns their paths.

    Raises:
        InputError: ``name`` is no Python name, or one of the files exists; nothing was written.
    """
    if not name.isidentifier() or keyword.iskeyword(name):
        raise InputError(f"a task module's name must be a Python name such as mytask, got {name!r}")
    if name in sys.stdlib_module_names or name in {"pocketfleet", "torch", "numpy", "pandas"}:
        # The working directory is searched last: such a module of the user's would never be found.
        raise InputError(f"{name!r} is the name of an installed module; choose another, such as my_{name}")
    texts = {
        folder / f"{name}.py": _template("task.py.txt", name),
        folder / f"{name}.csv": _made_up_table(),
        folder / f"{name}.toml": _template("experiment.toml.txt", name),
    }
    for path in texts:
        if path.exists():
            raise InputError(f"{path} exists already; choose another name or move it away")
    for path, text in texts.items():
        path.write_text(text)
    return list(texts)


def _template(file: str, name: str) -> str:
    text = resources.files("pocketfleet").joinpath("templates", file).read_text()
    return text.replace("TASK_NAME", name)


def _made_up_table() -> str:
    """Flats with size, age and distance to the centre, and a rent that depends on them with some noise."""
    u = uniform(draw_key(0, "starter", np.arange(_ROWS)), 3)
    size_m2, age_years, centre_km = 20 + 100 * u[:, 0], 80 * u[:, 1], 15 * u[:, 2]
    noise = normal(draw_key(0, "starter_noise", np.arange(_ROWS)), 1)[:, 0]
    rent = 2.0 + 0.12 * size_m2 - 0.01 * age_years - 0.3 * centre_km + 0.5 * noise
    rows = np.stack([size_m2, age_years, centre_km, rent], axis=1)
    lines = [",".join(f"{value:.3f}" for value in row) for row in rows]
    return "\n".join(["size_m2,age_years,centre_km,rent", *lines]) + "\n"
