"""Bundles that commands of the docs have exported, for later commands of the session that would export the same again.

What is the same is what ``pocketfleet sweep`` takes for the same: ``bundle_group``. A later command is told of the
bundle by ``--set task.bundle``, and runs with its own initial weights as it would have without. Only packaged tasks and
algorithms are shared: on two pages, a reader's own module of one name may hold two things.
"""

import hashlib
import itertools
import shutil
from pathlib import Path

from pocketfleet import Experiment
from pocketfleet.device_sim.sweep import bundle_group

# Commands that export the bundle of the experiment they are given first, unless it names one.
EXPORTING = {"simulate", "plan", "sweep", "emulate"}


class SharedExports:
    """Of one session, in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def told(self, call: list[str], place: Path) -> list[str]:
        """The command, which is started in ``place``, with the bundle of an earlier one if there is one."""
        kept = self._kept(call, place)
        return [*call, "--set", f"task.bundle={kept}"] if kept is not None and kept.exists() else call

    def keep(self, call: list[str], place: Path) -> None:
        """Keep what a ``simulate`` has exported that was started in ``place``."""
        kept = self._kept(call, place)
        if kept is not None and not kept.exists() and call[1] == "simulate":
            out = call[call.index("--out") + 1] if "--out" in call else Path("runs") / Path(call[2]).stem
            shutil.copytree(place / out / "bundle", kept)

    def _kept(self, call: list[str], place: Path) -> Path | None:
        """Where the command's bundle is kept; ``None`` for a command that exports none, or none to share."""
        if call[0] != "pocketfleet" or call[1] not in EXPORTING or call[2].startswith("-"):
            return None
        named = str(place / call[2]) if call[2].endswith(".toml") else call[2]
        settings = [value for option, value in itertools.pairwise(call) if option == "--set"]
        experiment = Experiment.load(named, settings)
        if experiment.task.bundle or experiment.task.options or ":" in experiment.task.name + experiment.algorithm.name:
            return None
        return self._folder / hashlib.sha256(bundle_group(experiment.model_dump()).encode()).hexdigest()[:16]
