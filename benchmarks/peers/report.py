"""Writes a comparison down: a table in Markdown, a plot, and all of it as JSON."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
from comparison import Row
from goals import GOALS, PUBLISHED, STAGE_LIMIT, Goal, Judgement, SecondsGoal, heavy_stages, judge
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
        "goals": [dataclasses.asdict(goal) | _figures(judge(rows, goal)) for goal in GOALS],
        "published": [dataclasses.asdict(each) for each in PUBLISHED],
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
    lines += _goals(rows) + _stages(rows)
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
        "| around them, s | both, s | loss differs by |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        spread = f"{row.steps_per_s_least:,.0f} to {row.steps_per_s_greatest:,.0f}" if row.runs > 1 else "one run"
        lines.append(
            f"| {row.system} | {row.steps_per_s:,.0f} | {spread} | {1e6 / row.steps_per_s:,.1f} | {row.rounds} of "
            f"{row.all_rounds} | {_seconds(row)} | {row.around_s:.1f} | {row.whole_s:.1f} | {row.disagreement:.1e} |"
        )
    return lines


def _seconds(row: Row) -> str:
    return f"{row.all_rounds_s:.1f}{' (computed)' if row.computed else ''}"


def _figures(judgement: Judgement | None) -> dict[str, float | bool | None]:
    """For the JSON; nothing where a side did not run."""
    names = ("measured", "whole", "met", "met_whole")
    return {name: None if judgement is None else getattr(judgement, name) for name in names}


def _word(*, met: bool) -> str:
    return "met" if met else "**missed**"


def _goals(rows: Sequence[Row]) -> list[str]:
    """Every goal with its figures; what did not run says so."""
    judged = [(goal, judge(rows, goal)) for goal in GOALS]
    told = [found for _, found in judged if found is not None]
    lines = ["", "## Goals", ""]
    lines.append(
        f"By the rounds alone {sum(found.met for found in told)} of {len(told)} are met; with what is around them, "
        f"which no peer is charged for, {sum(found.met_whole for found in told)}. Not run: {len(GOALS) - len(told)}."
    )
    lines += ["", "### Ratios of throughput", ""]
    lines += ["| workload | ours | peer | goal | rounds alone | | with what is around them | |"]
    lines += ["|---|---|---|---:|---:|---|---:|---|"]
    lines += [_ratio_line(goal, found) for goal, found in judged if isinstance(goal, Goal)]
    lines += ["", "### Seconds for all rounds", ""]
    lines += ["| workload | system | rounds | goal | rounds alone | | with what is around them | |"]
    lines += ["|---|---|---:|---:|---:|---|---:|---|"]
    lines += [_seconds_line(goal, found) for goal, found in judged if isinstance(goal, SecondsGoal)]
    lines += [
        f"| {each.workload} | {each.system}, *published*: {each.source}, another machine | {each.rounds} | "
        f"| {each.seconds:,.0f} | | | |"
        for each in PUBLISHED
    ]
    return lines


def _ratio_line(goal: Goal, found: Judgement | None) -> str:
    if found is None or found.peer is None:
        return f"| {goal.workload} | {goal.ours} | {goal.peer} | {goal.ratio:.2f} | not run | | | |"
    return (
        f"| {goal.workload} | {found.ours.system} | {found.peer.system} | {goal.ratio:.2f} "
        f"| {found.measured:.2f} | {_word(met=found.met)} | {found.whole:.2f} | {_word(met=found.met_whole)} |"
    )


def _seconds_line(goal: SecondsGoal, found: Judgement | None) -> str:
    if found is None:
        return f"| {goal.workload} | {goal.ours} | | under {goal.seconds:g} | not run | | | |"
    return (
        f"| {goal.workload} | {found.ours.system} | {found.ours.all_rounds} | under {goal.seconds:g} "
        f"| {_seconds(found.ours)} | {_word(met=found.met)} | {found.whole:.1f} | {_word(met=found.met_whole)} |"
    )


def _stages(rows: Sequence[Row]) -> list[str]:
    """Where the time of our rows went, and what takes too much of it."""
    looked = [row for row in rows if row.stages]
    if not looked:
        return []
    stages = list(looked[0].stages)
    lines = ["", "## Where the time went", "", f"Shares of the wall time; the goal: none over {STAGE_LIMIT:.0%} but"]
    lines[-1] += " training, which is the time that a run waits for its worker processes where it has them."
    lines += ["", f"| workload | system | {' | '.join(stages)} | over {STAGE_LIMIT:.0%} but training |"]
    lines += [f"|---|---|{'---:|' * len(stages)}---|"]
    for row in looked:
        shares = " | ".join(f"{row.stages[stage]:.1%}" for stage in stages)
        heavy = ", ".join(f"**{stage}**" for stage in heavy_stages(row)) or "none"
        lines.append(f"| {row.workload} | {row.system} | {shares} | {heavy} |")
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
