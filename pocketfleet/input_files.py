"""The files that an experiment names, by what is in them: a run that goes on must find them as they were."""

import json
from pathlib import Path

from pocketfleet.device_sim.recording import DECISIONS
from pocketfleet.errors import InputError
from pocketfleet.experiment import Experiment
from pocketfleet.export.manifest import file_sha256

__all__ = ["INPUTS", "check_unchanged", "input_hashes"]

# The file of a run directory that holds them.
INPUTS = "inputs.json"
# Keys of [fleet] whose value may be a file's path; elsewhere it is a packaged name.
_KEYS = ("mix", "catalogue", "profile", "network", "availability")


def input_hashes(experiment: Experiment) -> dict[str, str]:
    """SHA-256 by key, such as ``fleet.availability``, of each file that the experiment names."""
    return {key: file_sha256(path) for key, path in _named(experiment).items() if path.is_file()}


def _named(experiment: Experiment) -> dict[str, Path]:
    named = {f"fleet.{key}": Path(getattr(experiment.fleet, key)) for key in _KEYS}
    if experiment.rounds.recording:
        named["rounds.recording"] = Path(experiment.rounds.recording) / DECISIONS
    return named


def check_unchanged(experiment: Experiment, recorded: str) -> None:
    """Compare the experiment's files with what a run recorded of them.

    Args:
        experiment: as it is resumed.
        recorded: JSON of an earlier ``input_hashes``.

    Raises:
        InputError: a file has another content, or is gone.
    """
    now = input_hashes(experiment)
    for key, digest in json.loads(recorded).items():
        if now.get(key) != digest:
            path = _named(experiment).get(key, Path())
            state = "is gone" if key not in now else "was edited"
            raise InputError(f"{key}: {path} {state} since the run started: put it back as it was, or start a new run")
