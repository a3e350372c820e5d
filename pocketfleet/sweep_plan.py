"""The runs of a sweep, each an experiment that was found to be in order before the first one starts.

``device_sim.sweep`` knows the grid; here its combinations become experiments and folders.
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pocketfleet.assembly import Parts, given_path
from pocketfleet.device_sim.run_comparison import CHOSEN_BY_THE_ENGINE, changed_keys, flattened
from pocketfleet.device_sim.run_directory import EXPERIMENT, SUMMARY
from pocketfleet.device_sim.sweep import Variation, bundle_group, combinations, folder_name
from pocketfleet.errors import InputError
from pocketfleet.experiment import Experiment, parsed_settings
from pocketfleet.privacy_parts import with_noise_found
from pocketfleet.whole_file import write_whole

__all__ = ["PlannedRun", "plan_runs"]

# What may differ between a run and its plan: where its programs came from, and how the host computes.
_LENIENT = {*CHOSEN_BY_THE_ENGINE, "task.bundle", "engine.backend", "engine.address", "engine.checkpoint_share"}


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedRun:
    """One combination.

    Attributes:
        name: of its folder; see ``device_sim.sweep.folder_name``.
        values: the varied keys' values, as TOML text.
        experiment: what runs, its noise found.
        path: its run directory.
    """

    name: str
    values: Mapping[str, str]
    experiment: Experiment
    path: Path

    @property
    def group(self) -> str:
        """Equal for runs that can share a bundle's programs."""
        return bundle_group(self.experiment.model_dump())

    @property
    def started(self) -> bool:
        """Whether there is a run to go on with."""
        return (self.path / EXPERIMENT).is_file()

    @property
    def complete(self) -> bool:
        """Whether the run ended."""
        return self.started and (self.path / SUMMARY).is_file()

    @property
    def bundle(self) -> Path | None:
        """The run's bundle, once it is there; it appears whole."""
        folder = self.path / "bundle"
        return folder if folder.is_dir() else None

    def typed_values(self) -> dict[str, Any]:
        """The varied keys' values, as TOML reads them."""
        found = {}
        for key, text in self.values.items():
            value: Any = parsed_settings([f"{key}={text}"])
            for part in key.split("."):
                value = value[part.strip()]
            found[key] = value
        return found

    def check_match(self) -> None:
        """Raise ``InputError`` if the run that is there is of another experiment."""
        if not self.started:
            return
        found, planned = self._found(), self.experiment.model_dump(exclude_none=True)
        # A way that was asked for, not left to the run's probe, is kept to.
        lenient = _LENIENT if self.experiment.engine.plan == "auto" else _LENIENT - {"engine.plan"}
        differing = [key for key in changed_keys([flattened(found), flattened(planned)]) if key not in lenient]
        if differing:
            raise InputError(
                f"--resume: {self.path} was run with another {', '.join(differing)}: repeat the command that began the "
                "sweep, or name another --out"
            )

    def forget_bundle(self) -> None:
        """Let the ended run's experiment name the bundle of its plan, not another run's: its own folder holds one."""
        found = self._found()
        if found["task"]["bundle"] != self.experiment.task.bundle:
            found["task"]["bundle"] = self.experiment.task.bundle
            write_whole(self.path / EXPERIMENT, Experiment.from_table(found).to_toml())

    def _found(self) -> dict[str, Any]:
        file = self.path / EXPERIMENT
        try:
            table = tomllib.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as exc:
            raise InputError(f"{file} cannot be read ({exc}): delete {self.path} and --resume again") from exc
        return Experiment.from_table(table, name=str(file)).model_dump(exclude_none=True)


def plan_runs(
    source: str, variations: Sequence[Variation], settings: Sequence[str], out: Path
) -> tuple[PlannedRun, ...]:
    """Every combination's run, checked: keys, values, task, fleet, availability, bundle.

    Args:
        source: an experiment by packaged name or path.
        variations: at least one.
        settings: ``--set`` of all runs; they name no varied key.
        out: the sweep's folder; only looked at.

    Raises:
        InputError: a combination cannot run, two are the same experiment, or a key is set and varied.
    """
    _check_settings(variations, settings)
    runs: dict[str, PlannedRun] = {}
    names: dict[str, str] = {}
    for values in combinations(variations):
        told = ", ".join(f"{key}={value}" for key, value in values.items())
        experiment = _checked(source, values, settings, told=told)
        same = names.setdefault(experiment.model_dump_json(), told)
        if same != told or folder_name(values) in runs:
            raise InputError(f"--vary: {told} is the same experiment as {same}: leave one out")
        name = folder_name(values)
        runs[name] = PlannedRun(name=name, values=values, experiment=experiment, path=out / name)
    return tuple(runs.values())


def _check_settings(variations: Sequence[Variation], settings: Sequence[str]) -> None:
    given = {setting.partition("=")[0].strip() for setting in settings}
    for variation in variations:
        if variation.key in given:
            raise InputError(f"{variation.key} is varied and set: leave out --set {variation.key} or --vary of it")


def _checked(source: str, values: Mapping[str, str], settings: Sequence[str], *, told: str) -> Experiment:
    """The experiment of a combination; what it names has been made once, and let go."""
    try:
        experiment = Experiment.load(source, [*settings, *(f"{key}={value}" for key, value in values.items())])
        experiment = with_noise_found(experiment, Parts.of(experiment, given_path(experiment)).traffic.report)
    except InputError as exc:
        raise InputError(f"with {told}: {exc}") from exc
    return experiment
