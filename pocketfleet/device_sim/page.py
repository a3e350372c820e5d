"""A finished run as one HTML page that needs nothing else: no script, no other file, no network.

Rules:

1. Every number is a run's own (``page_figures``, ``summary.json``) and marked (``page_table``).
2. A chart stands with what it shows in words, its table and the table's CSV.
3. What a run has not, such as metrics when only its clock ran, is said and not drawn.
4. Text of a run (names, its experiment) is escaped wherever it stands.
"""

import shlex
from collections.abc import Sequence
from html import escape
from importlib import resources

import pandas as pd

from pocketfleet.device_sim import page_charts as charts
from pocketfleet.device_sim import page_figures as figures
from pocketfleet.device_sim.page_table import download, figure_tag, readable
from pocketfleet.device_sim.run import Run
from pocketfleet.device_sim.run_directory import EXPERIMENT

__all__ = ["page"]

_HOUR_S = 3600.0
# Column of a device: what its distribution is called, and the unit shown as a divisor.
_SPREADS = {
    "train_s": ("training, s", 1.0),
    "downlink_bytes": ("downloaded, MB", 1e6),
    "uplink_bytes": ("uploaded, MB", 1e6),
    "metered_bytes": ("metered, MB", 1e6),
    "energy_joules": ("energy, J", 1.0),
}
# The patterns that tell areas apart without colour; ``page_charts`` names them.
_PATTERNS = (
    '<svg id="patterns" aria-hidden="true"><defs>'
    '<pattern id="diagonal" width="6" height="6" patternUnits="userSpaceOnUse"><path d="M-1 7L7 -1"/></pattern>'
    '<pattern id="dots" width="5" height="5" patternUnits="userSpaceOnUse"><circle cx="2" cy="2" r="1"/></pattern>'
    '<pattern id="flat" width="5" height="5" patternUnits="userSpaceOnUse"><path d="M0 2.5H5"/></pattern>'
    '<pattern id="cross" width="7" height="7" patternUnits="userSpaceOnUse"><path d="M0 0L7 7M7 0L0 7"/></pattern>'
    "</defs></svg>"
)
# Nothing may be loaded, from anywhere; the browser enforces it.
_ENDINGS = {
    "rounds": "with its last round",
    "horizon": "at its horizon",
    "privacy_spent": "when fewer phones than a round needs could still be in a model",
}
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def page(run: Run, *, round_index: int | None = None) -> str:
    """The whole page.

    Args:
        run: a finished run.
        round_index: whose timeline is drawn; by default the round of median duration.

    Raises:
        InputError: the run has no such round, or its own catalogue cannot be read any more.
    """
    style = resources.files("pocketfleet").joinpath("templates", "report.css").read_text()
    title = f"{run.summary['task']}: {run.summary['devices']:,} phones"
    sections = (_head(run, title), _learning(run), _privacy(run), _timeline(run, round_index), _dropouts(run))
    body = "".join((*sections, _devices(run), _fairness(run), _personal(run), _costs(run), _again(run)))
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{style}</style></head><body>{_PATTERNS}<main>{body}</main></body></html>\n"
    )


def _section(heading: str, words: str, *cards: str) -> str:
    grid = f'<div class="charts">{"".join(cards)}</div>' if cards else ""
    return f"<section><h2>{heading}</h2><p>{words}</p>{grid}</section>"


def _card(title: str, words: str, drawing: str) -> str:
    return f"<figure><figcaption>{escape(title)}<p>{words}</p></figcaption>{drawing}</figure>"


def _table(name: str, table: pd.DataFrame) -> str:
    return download(name, table) + readable(name, table)


def _head(run: Run, title: str) -> str:
    summary = run.summary
    size, unit = (_HOUR_S, "h") if summary["virtual_seconds"] >= 2 * _HOUR_S else (1.0, "s")
    facts = [
        ("phones", figure_tag("devices", summary["devices"])),
        ("rounds that made a model", figure_tag("rounds", summary["rounds"])),
        ("rounds abandoned", figure_tag("rounds_abandoned", summary["rounds_abandoned"])),
        ("virtual time", figure_tag("virtual_seconds", summary["virtual_seconds"], scale=size, unit=unit)),
        ("assignments", figure_tag("device_rounds", summary["device_rounds"])),
        ("reports accepted", figure_tag("reports_accepted", summary["reports_accepted"])),
        ("downloaded", figure_tag("downlink_bytes", summary["downlink_bytes"], scale=1e6, unit="MB")),
        ("uploaded", figure_tag("uplink_bytes", summary["uplink_bytes"], scale=1e6, unit="MB")),
        ("energy", figure_tag("energy_joules", summary["energy_joules"], unit="J")),
    ]
    for name, value in summary["metrics"]["last"].items():
        facts.append((f"{name}, last", figure_tag(f"last:{name}", value)))
    shown = "".join(f"<div><dt>{escape(name.replace('_', ' '))}</dt><dd>{value}</dd></div>" for name, value in facts)
    return f'<h1>{escape(title)}</h1><p class="quiet">{escape(_kind(run))}</p><dl class="facts">{shown}</dl>'


def _kind(run: Run) -> str:
    summary = run.summary
    if "service" in summary:
        return (
            f"What a service of pocketfleet did, population {summary['service']['population']}, up to version "
            f"{summary['service']['version']}. Downloads, stages of an attempt and energy are not known to a service."
        )
    how = f"{summary['program']} on the phone" + (", by the clock alone" if summary["timing_only"] else "")
    return f"A simulated run of pocketfleet, {how}; it ended {_ENDINGS[summary['ended']]}."


def _learning(run: Run) -> str:
    table = figures.learning(run)
    metric = f"test_{run.summary['headline_metric']}"
    if metric not in table:
        why = "only the clock ran (--timing-only)" if run.summary["timing_only"] else "no round was evaluated"
        words = f"This run has no metrics: {why}. The table has what each round took."
        return _section("Learning", words) + (_table("rounds", table) if len(table) else "")
    against = {
        "rounds": ("round", 1.0, "rounds closed"),
        "hours": ("closed_hours", 1.0, "virtual time, h"),
        "bytes": ("total_bytes", 1e6, "down- and uploaded, MB"),
        "joules": ("total_joules", 1.0, "energy of the phones, J"),
    }
    label = metric.replace("_", " ")
    cards = [
        _card(
            f"{label} against {word}",
            "",
            charts.line(
                f"learning-{word}",
                table[column] / scale + (1 if word == "rounds" else 0),
                table[metric],
                x_label=x_label,
                y_label=label,
                title=f"{label} against {word}",
            ),
        )
        for word, (column, scale, x_label) in against.items()
    ]
    whose = "as the phones' evaluation replies say" if "flower" in run.summary else "on examples that no phone holds"
    words = (
        f"The global model {whose}, against what it took. At most {charts.MOST_POINTS} evaluations are drawn, evenly "
        "spaced; the table has all."
    )
    return _section("Learning", words, *cards) + _table("rounds", table)


def _privacy(run: Run) -> str:
    found = run.summary.get("privacy")
    if found is None:
        return ""
    if found["epsilon"] is None:
        return _section("Privacy", "Updates were clipped and no noise was added: nothing is promised to any phone.")
    whose = "of the phone that is in most models"
    if found["accounting"] == "poisson":
        whose = "if rounds were random samples that nobody knows, which is an assumption"
    words = (
        f"Epsilon {figure_tag('privacy_epsilon', found['epsilon'])} at delta "
        f"{figure_tag('privacy_delta', found['delta'])}, {whose}. The models keep to it; this page and the tables "
        "do not: losses and metrics are those of the phones, without noise."
    )
    table = figures.learning(run)
    if table.empty:
        return _section("Privacy", words)
    title, x_label = "epsilon against rounds", "rounds closed"
    drawing = charts.line(
        "privacy", table["round"] + 1, table["epsilon"], x_label=x_label, y_label="epsilon", title=title
    )
    return _section("Privacy", words, _card(title, "", drawing))


def _timeline(run: Run, wanted: int | None) -> str:
    number = figures.timeline_round(run, wanted)
    table = figures.timeline(run, number) if number is not None else pd.DataFrame()
    if number is None or table.empty:
        which = "No round closed." if number is None else f"In round {number} no phone got as far as a stage."
        return _section("A round's timeline", which)
    devices = table["device"].nunique()
    why = "the one asked for" if wanted is not None else "of median duration among those with a report"
    some = f", of which {charts.MOST_LANES} are drawn, evenly spaced" if devices > charts.MOST_LANES else ""
    words = (
        f"Round {figure_tag('timeline_round', number)}, {why}: {figure_tag('timeline_devices', devices)} phones{some}. "
        "Seconds since it opened; the table has every stage and what cut it short."
    )
    stages = [stage for stage in figures.STAGES if (table["stage"] == stage).any()]
    title = f"Round {number}: what each phone did when"
    drawing = charts.lanes("timeline", table, stages, x_label="since the round opened, s", title=title)
    card = _card(title, "", charts.legend(stages) + drawing + _table("timeline", table))
    return _section("A round's timeline", words, card)


def _dropouts(run: Run) -> str:
    table = figures.dropouts_by_hour(run)
    reasons = list(table.columns[2:])
    counts = ", ".join(f"{figure_tag(f'dropouts:{word}', int(table[word].sum()))} {_words(word)}" for word in reasons)
    cards = []
    for name, columns, title in (
        ("dropouts", reasons, "Assignments without an accepted report"),
        ("assignments", ["assigned"], "Assignments"),
    ):
        if columns and table[columns].to_numpy().any():
            drawing = charts.stack(
                name, table[["hour", *columns]], x_label="hour of the virtual day", y_label="assignments", title=title
            )
            cards.append(_card(f"{title}, by hour", "", charts.legend([_words(word) for word in columns]) + drawing))
    words = f"Assignments that gave no accepted report: {counts or 'none'}. Each stands at the hour it ended in."
    return _section("Dropouts", words, *cards) + _table("dropouts", table)


def _words(word: str) -> str:
    return escape(word.replace("_", " "))


def _devices(run: Run) -> str:
    tiers, bounds = figures.phone_tiers(run)
    table = figures.spread(run.devices, tiers)
    low, high = (
        figure_tag(name, bounds[name], scale=1e9, unit="GFLOPS") for name in ("slow_middle_flops", "middle_fast_flops")
    )
    words = (
        "Over the phones that were assigned anything, whole run: the box holds the middle half, the thick line is the "
        "median, whiskers reach from the 10th to the 90th percentile. A tier is a third of the catalogue's phone "
        f"models by the peak of one thread: slow up to {low}, middle up to {high}, fast above. What nine in ten phones "
        "of every tier have nothing of is in the table alone."
    )
    cards = [
        _card(
            f"{label.partition(',')[0].capitalize()} a phone",
            "",
            charts.boxes(f"spread-{figure}", rows, x_label=label, scale=scale, title=f"{label} a phone, by tier"),
        )
        for figure, (label, scale) in _SPREADS.items()
        if (rows := table[table["figure"] == figure])["p90"].any()
    ]
    shares = figures.tier_shares(run.devices, tiers)
    return _section("Phones and tiers", words, *cards) + _table("spread", table) + _table("tiers", shares)


def _fairness(run: Run) -> str:
    shares = figures.participation_deciles(run.devices)
    cards = [
        _decile_card("participation", shares, ["accepted_ratio"], "Share of all accepted reports", "phones by reports")
    ]
    metrics = figures.deciles(run.devices)
    words = "A tenth of the phones each, the lowest first: who contributes, and whom the model serves."
    if metrics.empty:
        words += " No phone has a metric of its own in this run."
    else:
        metric = f"{run.summary['headline_metric']} on own examples"
        columns = ["metric_global", "metric_personalised"]
        cards.append(_decile_card("fairness", metrics, columns, metric, "phones by the global model's metric"))
    return _section("Fairness", words, *cards)


def _decile_card(name: str, table: pd.DataFrame, columns: Sequence[str], label: str, order: str) -> str:
    title = f"{label}, by decile"
    drawn = table[["decile", *columns]].rename(columns=lambda column: str(column).removeprefix("metric_"))
    drawing = charts.bars(name, drawn, x_label=f"decile of {order}", y_label=label, title=title)
    legend = charts.legend(list(drawn.columns[1:])) if len(columns) > 1 else ""
    return _card(title, "", legend + drawing + _table(name, table))


def _personal(run: Run) -> str:
    measured = run.summary["personalisation"]
    if not measured["devices"]:
        return _section("Personalised against global", "No phone has a model of its own with a metric in this run.")
    table = figures.own_against_global(run.devices)
    metric = str(measured["metric"])
    words = (
        f"{escape(metric)} on the examples that a phone holds out, of the global model it last trained from and of its "
        f"own after training: {figure_tag('personal_global', measured['global'])} and "
        f"{figure_tag('personal_own', measured['personalised'])} in the mean of "
        f"{figure_tag('personal_devices', measured['devices'])} phones. At most {charts.MOST_POINTS} are drawn."
    )
    drawing = charts.cloud(
        "personal",
        table["metric_global"],
        table["metric_personalised"],
        x_label=f"{metric}, global model",
        y_label=f"{metric}, own model",
        title=f"{metric}: own model against the global one, a phone each",
    )
    card = _card("A phone each; on the dashed line both are equal", "", drawing + _table("personal", table))
    return _section("Personalised against global", words, card)


def _costs(run: Run) -> str:
    table = figures.cost_rows(run)
    words = (
        "Totals of the run, of unaccepted work too, and the same divided by the rounds that made a model, by the "
        "accepted reports and by the phones of the fleet. Metered bytes are those of both directions that cost money."
    )
    return _section("Costs", words) + _table("costs", table).replace("<details>", "<details open>")


def _again(run: Run) -> str:
    same = "with the same versions on the same machine its events hash to the same"
    words = ["simulate", str(run.path / EXPERIMENT)]
    if (flower := run.summary.get("flower")) is not None:
        changes = [word for key, value in flower["run_config"].items() for word in ("--run-config", f"{key}={value}")]
        words = ["flower", flower["app"], "--fleet", str(run.path / EXPERIMENT), *changes]
        same += ", if its fleet gives the work on an example and the app draws from seeds of its own"
    if "service" in run.summary:
        words += ["--set", f"rounds.recording={run.path}"]
        same = "the devices' check-ins and reports come again, and the coordinator decides anew"
    command = shlex.join(["pocketfleet", *words, "--out", f"{run.path}-again"])
    model = run.summary["model_sha256"] or "the app keeps its own model"
    return (
        f"<section><h2>Experiment</h2><p>This command runs it again; {same}.</p>"
        f'<pre data-figure="command">{escape(command)}</pre>'
        '<p class="quiet">events_sha256 '
        f'<code data-figure="events_sha256">{escape(run.summary["events_sha256"])}</code>'
        f'<br>model_sha256 <code data-figure="model_sha256">{escape(model)}</code></p>'
        f"<details><summary>{EXPERIMENT}, every key</summary>"
        f'<pre data-figure="experiment">{escape((run.path / EXPERIMENT).read_text())}</pre></details></section>'
    )
