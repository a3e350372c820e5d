"""Rows of runs as a terminal shows them and as a spreadsheet reads them.

A row has some twenty figures, more than a terminal is wide: they are printed as one table a subject, each with one row
a run. A CSV file holds whole rows.
"""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence

from pocketfleet.device_sim.bench_tables import Table
from pocketfleet.device_sim.run_comparison import DIFFERENCE, LOST, Row

__all__ = ["comparison_tables", "csv_text"]

_UNKNOWN = "-"
_LEARNT = "What was learnt"
# With more keys than that a table of figures would not fit into 80 columns, a terminal's usual width.
_LEADING_KEYS = 2


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _amount(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _share(value: float) -> str:
    return f"{100.0 * value:.1f} %"


# By subject: a figure, its title, its form. The shares of lost assignments come where ``LOST`` stands.
_SUBJECTS: Mapping[str, Sequence[tuple[str, str, Callable[[float], str]]]] = {
    "Rounds": (
        ("rounds", "made a model", _count),
        ("rounds_abandoned", "abandoned", _count),
        ("virtual_hours", "virtual h", _amount),
        ("round_mean_s", "mean s", _amount),
        ("round_p90_s", "p90 s", _amount),
    ),
    "What became of the assignments": (
        ("device_rounds", "assigned", _count),
        ("accepted", "accepted", _count),
        ("accepted_ratio", "share", _share),
        (LOST, "", _share),
        ("in_flight_ratio", "under way", _share),
    ),
    "What it cost": (
        ("downlink_mb", "MB down", _amount),
        ("uplink_mb", "MB up", _amount),
        ("energy_joules", "J", _amount),
        ("mb_per_accepted", "MB / accepted", _amount),
        ("joules_per_accepted", "J / accepted", _amount),
    ),
    _LEARNT: (
        ("metric_last", "last", _amount),
        ("metric_mean_of_last_five", "mean of last five", _amount),
    ),
    "What it gives away": (
        ("epsilon", "epsilon", _amount),
        ("clip_norm", "clip norm", _amount),
        ("rounds_without_sum", "no sum", _count),
    ),
}


def comparison_tables(rows: Sequence[Row], *, keys: Sequence[str], notes: Sequence[str] = ()) -> tuple[Table, ...]:
    """What ``rows`` hold: which runs they are, then a table a subject that any of them knows something of.

    Args:
        rows: of ``run_comparison`` or of a sweep, all with the same columns, at least one.
        keys: the columns that tell the runs apart, beside ``run``; tables lead with them, or with a number where they
            are none or too many.
        notes: further columns of the first table.
    """
    numbers = range(1, len(rows) + 1)
    leads = [{key.rpartition(".")[2]: _plain(row[key]) for key in keys} for row in rows]
    numbered = not 1 <= len(keys) <= _LEADING_KEYS or any(len(lead) < len(keys) for lead in leads)
    if numbered:
        leads = [{"#": str(number)} for number in numbers]
    runs = tuple(
        {**(lead if numbered else {}), "run": row["run"], **{key: _plain(row[key]) for key in (*keys, *notes)}}
        for row, lead in zip(rows, leads, strict=True)
    )
    known = [(row, lead) for row, lead in zip(rows, leads, strict=True) if row.get("rounds") is not None]
    subjects = [_subject(title, known) for title in _SUBJECTS]
    return (Table(title="Runs", rows=runs), *(table for table in subjects if table.rows))


def _subject(title: str, rows: Sequence[tuple[Row, Mapping[str, str]]]) -> Table:
    """The table of a subject: rows with their leading cells; none where no row knows any of its figures."""
    columns: list[tuple[str, str, Callable[[float], str]]] = []
    for name, words, form in _SUBJECTS[title]:
        if name == LOST:
            lost = sorted({column for row, _ in rows for column in row if column.startswith(LOST)})
            lost = [column for column in lost if not column.endswith(DIFFERENCE)]
            columns += [(column, column.removeprefix(LOST).replace("_", " "), form) for column in lost]
        else:
            columns.append((name, words, form))
    if not any(row[name] is not None for row, _ in rows for name, _, _ in columns):
        return Table(title=title, rows=())
    cells = [
        {
            **lead,
            **({"metric": row["metric"]} if title == _LEARNT else {}),
            **{words: _cell(row, name, form) for name, words, form in columns},
        }
        for row, lead in rows
    ]
    return Table(title=title, rows=tuple(cells))


def _cell(row: Row, name: str, form: Callable[[float], str]) -> str:
    value, difference = row[name], row.get(f"{name}{DIFFERENCE}")
    if value is None:
        return _UNKNOWN
    told = f"{difference or 0.0:+.1f} %"
    return form(value) if told in {"+0.0 %", "-0.0 %"} else f"{form(value)} ({told})"


def _plain(value: object) -> str:
    """A key's value as text: words as they are, everything else as JSON."""
    if value is None:
        return _UNKNOWN
    return value if isinstance(value, str) else json.dumps(value, default=str)


def csv_text(rows: Sequence[Row]) -> str:
    """Rows, which share their columns, as a CSV file's text; what is not known is an empty cell."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow(
            {name: _plain(value) if isinstance(value, list | dict) else value for name, value in row.items()}
        )
    return text.getvalue()
