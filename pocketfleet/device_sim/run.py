"""A finished run read back: its tables, its summary, its plots."""

import json
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from pocketfleet.device_sim.days_of_use import days_of_use, plot_days
from pocketfleet.device_sim.device_store import DeviceStore
from pocketfleet.device_sim.run_directory import EXPERIMENT, MODEL, RELEASED, SUMMARY
from pocketfleet.errors import InputError
from pocketfleet.export.bundle import Bundle
from pocketfleet.export.model_version import with_weights
from pocketfleet.training.update import tensors_from_bytes
from pocketfleet.training.weights import Weights

__all__ = ["Run"]

_TIME_UNITS = (("days", 86_400.0), ("hours", 3600.0), ("minutes", 60.0))


class Run:
    """A run directory of a simulation that ended.

    Attributes:
        path: the directory.
        summary: what ``summary.json`` says.
    """

    def __init__(self, path: Path | str) -> None:
        """Open a run.

        Raises:
            InputError: there is no finished run at ``path``.
        """
        self.path = Path(path)
        if not (self.path / EXPERIMENT).is_file():
            raise InputError(f"{path} holds no run (no {EXPERIMENT})")
        if not (self.path / SUMMARY).is_file():
            raise InputError(f"the run in {path} has not ended: continue it with pocketfleet simulate --resume {path}")
        self.summary: dict[str, Any] = json.loads((self.path / SUMMARY).read_text())

    @property
    def _kept(self) -> Path:
        return self.path / "device_store"

    @cached_property
    def rounds(self) -> pd.DataFrame:
        """One row a closed round."""
        return pd.read_parquet(self.path / "rounds.parquet")

    @cached_property
    def events(self) -> pd.DataFrame:
        """One row an event, in order of time; see ``device_sim.events``."""
        return pd.read_parquet(self.path / "events.parquet")

    @cached_property
    def devices(self) -> pd.DataFrame:
        """One row a device."""
        return pd.read_parquet(self.path / "devices.parquet")

    @cached_property
    def updates(self) -> pd.DataFrame:
        """One row an update that became part of a model; none of a timing-only run. See ``tables.UPDATE_COLUMNS``."""
        return pd.read_parquet(self.path / "updates.parquet")

    @cached_property
    def releases(self) -> pd.DataFrame:
        """What versions became for phones, a row a change; see ``tables.RELEASE_COLUMNS``.

        Raises:
            InputError: the run had no gate.
        """
        self._check_gated()
        return pd.read_parquet(self.path / "releases.parquet")

    def personalisation_by_day(self) -> pd.DataFrame:
        """The global and the phones' own models on their held-out examples, a row a day; see ``days_of_use``.

        Raises:
            InputError: the run was timing only.
        """
        self._check_trained()
        return days_of_use(self.updates)

    def plot_days(self, file: Path | str | None = None) -> Path:
        """Draw ``personalisation_by_day``.

        Args:
            file: where to; ``days.png`` in the run directory by default.

        Returns:
            The file's path.

        Raises:
            InputError: the run was timing only, no update was measured, or ``file`` cannot be written.
        """
        target = Path(file) if file is not None else self.path / "days.png"
        return plot_days(self.personalisation_by_day(), target, metric=self.summary["headline_metric"])

    def weights(self, *, released: bool = False) -> Weights:
        """A global model: trainable weights, batch-norm statistics and frozen weights by name.

        Args:
            released: the one that phones used at the end, where a gate decided; otherwise the last that was made.

        Raises:
            InputError: the run was timing only, or had no gate.
        """
        self._check_trained()
        if released:
            self._check_gated()
        initial = Bundle.load(self.path / "bundle").weights()
        trained = tensors_from_bytes((self.path / (RELEASED if released else MODEL)).read_bytes())
        return replace(
            initial,
            trainable={name: trained[name] for name in initial.trainable},
            buffers={name: trained[name] for name in initial.buffers},
        )

    def personalised(self, device: int) -> Weights:
        """The model that a device trained last and keeps.

        Raises:
            InputError: the device has not taken part, or the run was timing only.
        """
        self._check_trained()
        if not 0 <= device < len(self.devices) or self.devices["trained_version"][device] < 0:
            raise InputError(f"device {device} has no model of its own: it is not of this fleet or was never accepted")
        own = DeviceStore.opened(self._kept).model(device)
        if not own:
            raise InputError(
                f"the phones of the run in {self.path} kept no models of their own: set training.personalised to true"
            )
        model = self.weights()
        return replace(
            model,
            trainable={name: own[name] for name in model.trainable},
            buffers={name: own[name] for name in model.buffers},
        )

    def _check_trained(self) -> None:
        if "flower" in self.summary:
            raise InputError(
                f"the run in {self.path} is of a Flower app, whose ServerApp keeps its model: let it save it"
            )
        if self.summary["timing_only"]:
            raise InputError(
                f"the run in {self.path} was timing only: nothing was trained; run it without --timing-only"
            )

    def _check_gated(self) -> None:
        if "release" not in self.summary:
            raise InputError(f'the run in {self.path} had no gate: run it with release.gate "evaluation"')

    def export(self, out: Path | str, *, released: bool = False) -> Bundle:
        """Write a bundle with a trained global model in it: what goes to real phones.

        Args:
            out: a folder that is not there yet.
            released: as of ``weights``.

        Raises:
            InputError: ``out`` exists, the run was timing only, or had no gate.
        """
        return with_weights(Bundle.load(self.path / "bundle"), self.weights(released=released), out=Path(out))

    def plot(self, file: Path | str | None = None) -> Path:
        """Draw the headline metric over rounds and virtual time, and what became of the assignments; a PNG.

        Args:
            file: where to; ``plot.png`` in the run directory by default.

        Returns:
            The file's path.
        """
        # The object interface, without pyplot: no window system is touched and no global state is left behind.
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(10, 4), layout="constrained")
        FigureCanvasAgg(figure)
        learning, fates = figure.subplots(1, 2)
        figure.suptitle(f"{self.summary['task']}: {self.summary['devices']} phones, {self.summary['rounds']} rounds")
        self._plot_metric(learning)
        self._plot_fates(fates)
        target = Path(file) if file is not None else self.path / "plot.png"
        figure.savefig(target, dpi=120)
        return target

    def _plot_metric(self, axes: Any) -> None:  # noqa: ANN401 - matplotlib is untyped
        name = f"test_{self.summary['headline_metric']}"
        evaluated = self.rounds.dropna(subset=[name]) if name in self.rounds else self.rounds.iloc[:0]
        end_s = float(self.summary["virtual_seconds"])
        unit, size = next((pair for pair in _TIME_UNITS if end_s >= 2 * pair[1]), ("seconds", 1.0))
        values = evaluated.get(name, evaluated["closed_s"])
        axes.plot(evaluated["closed_s"] / size, values, color="#0072b2", marker=".")
        if len(evaluated) and (evaluated[name] > 0).all() and evaluated[name].max() > 10 * evaluated[name].min():
            axes.set_yscale("log")
        axes.set_xlabel(f"virtual {unit}")
        axes.set_ylabel(name)
        axes.set_title("The global model on examples no phone holds")
        axes.grid(alpha=0.3)

    def _plot_fates(self, axes: Any) -> None:  # noqa: ANN401 - matplotlib is untyped
        # Okabe and Ito's palette, told apart by colour-blind readers (jfly.uni-koeln.de/color).
        colours = ("#009e73", "#e69f00", "#d55e00", "#cc79a7", "#56b4e9", "#f0e442", "#000000", "#999999")
        below = pd.Series(0, index=self.rounds.index)
        lost = [name for name in self.rounds.columns if name.startswith("dropouts_")]
        for colour, column in zip(colours, ["accepted", *lost], strict=False):
            label = column.removeprefix("dropouts_").replace("_", " ")
            axes.bar(self.rounds["round"], self.rounds[column], bottom=below, width=1.0, color=colour, label=label)
            below = below + self.rounds[column]
        axes.set_xlabel("round")
        axes.set_ylabel("assignments")
        axes.set_title("What became of the assignments")
        axes.yaxis.get_major_locator().set_params(integer=True)
        axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1.0, 1.0))
