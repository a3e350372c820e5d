"""Writes a comparison down: a table in Markdown, a plot, and all of it as JSON."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
from comparison import GOALS, Row, achieved, fastest
from result import Result

mpl.use("Agg")
import matplotlib.pyplot as plt

__all__ = ["write_report"]

COLOURS = {"pocketfleet": "tab:blue", "pfl-research": "tab:orange", "Flower": "tab:green", "plain": "tab:gray"}


def write_report(
    folder: Path,
    *,
    titles: Mapping[str, str],
    rows: Sequence[Row],
    results: Sequence[Result],
    circumstances: Mapping[str, str],
) -> None:
    """Write ``peers.md``, ``peers.png`` and ``peers.json`` to ``folder``.

    Args:
        folder: made where it is missing.
        titles: what a reader is told of each workload, by name.
        rows: of all workloads.
        results: the single runs, for the JSON.
        circumstances: command, machine, and so on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "peers.md").write_text(markdown(titles, rows, results, circumstances))
    plot(folder / "peers.png", titles, rows)
    whole = {
        "circumstances": dict(circumstances),
        "rows": [dataclasses.asdict(row) for row in rows],
        "goals": [dataclasses.asdict(goal) | {"achieved": achieved(rows, goal)} for goal in GOALS],
        "runs": [dataclasses.asdict(result) for result in results],
    }
    (folder / "peers.json").write_text(json.dumps(whole, indent=1) + "\n")


def markdown(
    titles: Mapping[str, str], rows: Sequence[Row], results: Sequence[Result], circumstances: Mapping[str, str]
) -> str:
    """The tables; a time that is computed says so."""
    lines = ["# The same training in pocketfleet and its peers", ""]
    lines += [f"- {name}: {value}" for name, value in circumstances.items()]
    lines += [f"- {name}: {value}" for name, value in _versions(results).items()]
    for name, title in titles.items():
        own = [row for row in rows if row.workload == name]
        if own:
            lines += ["", f"## {title}", "", *_table(own)]
    lines += ["", "## Ratios of throughput, against goals", "", "| workload | ours | peer | ratio | goal |"]
    lines += ["|---|---|---|---:|---:|"]
    for goal in GOALS:
        ratio = achieved(rows, goal)
        ours = fastest(rows, workload=goal.workload, system=goal.ours)
        peer = fastest(rows, workload=goal.workload, system=goal.peer)
        if ratio is not None and ours and peer:
            lines.append(f"| {goal.workload} | {ours.system} | {peer.system} | {ratio:.2f} | {goal.ratio:.2f} |")
    return "\n".join(lines) + "\n"


def _versions(results: Sequence[Result]) -> dict[str, str]:
    """The versions by the system's first word, runs of one system being alike."""
    return {
        f"versions, {result.system.split(',')[0]}": ", ".join(
            f"{name} {number}" for name, number in result.versions.items()
        )
        for result in results
    }


def _table(rows: Sequence[Row]) -> list[str]:
    lines = [
        "| system | device-steps a second | least to greatest | us a device-step | rounds run | all rounds, s "
        "| around it, s | loss differs by |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        spread = f"{row.steps_per_s_least:,.0f} to {row.steps_per_s_greatest:,.0f}" if row.runs > 1 else "one run"
        seconds = f"{row.all_rounds_s:.1f}{' (computed)' if row.computed else ''}"
        lines.append(
            f"| {row.system} | {row.steps_per_s:,.0f} | {spread} | {1e6 / row.steps_per_s:,.1f} | {row.rounds} of "
            f"{row.all_rounds} | {seconds} | {row.around_s:.1f} | {row.disagreement:.1e} |"
        )
    return lines


def plot(path: Path, titles: Mapping[str, str], rows: Sequence[Row]) -> None:
    """A panel a workload: throughput by system, logarithmic."""
    shown = [name for name in titles if any(row.workload == name for row in rows)]
    figure, panels = plt.subplots(len(shown), 1, figsize=(9, 2.4 * len(shown)), squeeze=False, layout="constrained")
    for axes, name in zip(panels[:, 0], shown, strict=True):
        own = sorted((row for row in rows if row.workload == name), key=lambda row: row.steps_per_s)
        colours = [next(colour for word, colour in COLOURS.items() if row.system.startswith(word)) for row in own]
        axes.barh([row.system for row in own], [row.steps_per_s for row in own], color=colours)
        for place, row in enumerate(own):
            axes.text(row.steps_per_s, place, f" {row.steps_per_s:,.0f}", va="center", fontsize=8)
        axes.set_xscale("log")
        axes.set_xlim(own[0].steps_per_s / 3, own[-1].steps_per_s * 3)
        axes.set_title(titles[name], fontsize=9)
        axes.tick_params(labelsize=8)
    panels[-1, 0].set_xlabel("device-steps a second")
    figure.savefig(path, dpi=110)
    plt.close(figure)
