"""How well the models do for their users, day by day: the global one, and the one that each phone trains itself.

Rules:

1. A row is a day of the virtual clock, the first is day 1; an update belongs to the day on which its attempt started.
   Days without updates that measured anything have no row.
2. Both models are measured on the examples that the phone held out of those that it had by then: the global model as
   it was downloaded, and the personalised one after training. Neither has been trained on them by this phone.
3. Each phone's updates of a day are averaged first, then the phones: an equal vote each.
"""

from pathlib import Path

import pandas as pd

from pocketfleet.device_sim.bench_plot import check_picture
from pocketfleet.errors import InputError

__all__ = ["days_of_use", "plot_days"]

_DAY_S = 86_400.0
_METRICS = ("metric_global", "metric_personalised")
_MEANS = ("num_present", "num_held_out", *_METRICS)


def days_of_use(updates: pd.DataFrame) -> pd.DataFrame:
    """The table of days.

    Args:
        updates: of a run, a row each; ``tables.UPDATE_COLUMNS``.

    Returns:
        Columns ``day``, ``updates``, ``devices``, and means: ``num_present`` and ``num_held_out`` (examples a phone),
        ``metric_global`` and ``metric_personalised`` (the task's headline metric).
    """
    measured = updates.dropna(subset=list(_METRICS))
    measured = measured.assign(day=(measured["start_s"] // _DAY_S).astype("int64") + 1)
    phones = measured.groupby(["day", "device"])[list(_MEANS)].mean()
    counts = measured.groupby("day").agg(updates=("device", "size"), devices=("device", "nunique"))
    return counts.join(phones.groupby("day").mean()).reset_index()


def plot_days(days: pd.DataFrame, path: Path, *, metric: str) -> Path:
    """Draw both metrics and the examples a phone holds against days.

    Args:
        days: of ``days_of_use``, at least one.
        path: a PNG, PDF or SVG.
        metric: what the task calls its headline.

    Raises:
        InputError: there are no days, or ``path`` cannot be written.
    """
    # The figure's own canvas, not pyplot: no window system is touched and no global state is left behind.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if days.empty:
        raise InputError("no update of this run was measured: phones hold too few examples to hold any out")
    check_picture(path)
    figure = Figure(figsize=(8, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    # Okabe and Ito's palette, told apart by colour-blind readers (jfly.uni-koeln.de/color).
    axes.plot(days["day"], days["metric_global"], color="#0072b2", marker="o", label="global model, as downloaded")
    axes.plot(days["day"], days["metric_personalised"], color="#d55e00", marker="s", label="personalised on the phone")
    axes.set_xlabel("day of use")
    axes.set_ylabel(f"{metric} on held-out examples")
    axes.set_xticks(days["day"])
    axes.grid(alpha=0.3)
    held = axes.twinx()
    held.bar(days["day"], days["num_present"], color="#999999", alpha=0.3, label="examples a phone holds")
    held.set_ylabel("examples a phone holds")
    # The lines before the bars.
    axes.set_zorder(held.get_zorder() + 1)
    axes.patch.set_visible(False)
    figure.legend(loc="outside lower center", ncols=3, fontsize="small")
    try:
        figure.savefig(path, dpi=120)
    except OSError as exc:
        raise InputError(f"{path} cannot be written: {exc}; name a .png in a folder that is there") from exc
    return path
