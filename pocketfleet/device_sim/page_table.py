"""Numbers and tables as a run's page shows them, each marked with its exact value.

Rules:

1. A shown number is rounded; ``data-value`` beside it is the number itself, as Python writes it. What is not a number
   shows as n/a.
2. A table's CSV is whole and exact, a link that holds its own content; the table to read has its first
   ``MOST_ROWS`` rows.
"""

import base64
from html import escape

import numpy as np
import pandas as pd

__all__ = ["MOST_ROWS", "download", "figure_tag", "readable", "shown"]

MOST_ROWS = 200


def shown(value: object) -> str:
    """A value as a reader reads it: whole numbers whole, others with four digits."""
    if isinstance(value, (int, np.integer)):
        return f"{int(value):,}"
    if not isinstance(value, (float, np.floating)):
        return str(value)
    number = float(value)
    if not np.isfinite(number):
        return "n/a"
    return f"{number:,.0f}" if abs(number) >= 10_000 else f"{number:,.4g}"


def _exact(value: object) -> str:
    return repr(value.item() if isinstance(value, np.generic) else value)


def figure_tag(name: str, value: float, *, scale: float = 1.0, unit: str = "") -> str:
    """One marked number, such as ``<data data-figure="rounds" data-value="12">12</data>``.

    Args:
        name: what the mark calls it.
        value: exactly.
        scale: the value is shown divided by it.
        unit: what follows the shown number.
    """
    text = shown(value if scale == 1.0 else value / scale) + (f" {unit}" if unit else "")
    return f'<data data-figure="{escape(name)}" value="{_exact(value)}" data-value="{_exact(value)}">{text}</data>'


def download(name: str, table: pd.DataFrame) -> str:
    """A link that gives the table as CSV, wholly inside the page."""
    content = base64.b64encode(table.to_csv(index=False).encode()).decode()
    address = f"data:text/csv;charset=utf-8;base64,{content}"
    return f'<p class="get"><a data-csv="{name}" download="{name}.csv" href="{address}">Download {name}.csv</a></p>'


def readable(name: str, table: pd.DataFrame) -> str:
    """The table to fold out; it scrolls within itself."""
    words = [not pd.api.types.is_numeric_dtype(kind) for kind in table.dtypes]
    kinds = [' class="word"' if word else "" for word in words]
    head = "".join(
        f'<th scope="col"{kind}>{escape(str(column).replace("_", " "))}</th>'
        for kind, column in zip(kinds, table.columns, strict=True)
    )
    rows = [
        "<tr>" + "".join(_cell(value, kind) for value, kind in zip(row, kinds, strict=True)) + "</tr>"
        for row in table.head(MOST_ROWS).itertuples(index=False, name=None)
    ]
    count = f"{len(table):,} rows" if len(table) <= MOST_ROWS else f"the first {MOST_ROWS} of {len(table):,} rows"
    return (
        f"<details><summary>Table: {name}, {count}</summary>"
        f'<div class="scroll" tabindex="0" role="region" aria-label="Table {name}">'
        f'<table data-table="{name}"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
        "</div></details>"
    )


def _cell(value: object, kind: str) -> str:
    if kind:
        return f"<td{kind}>{escape(str(value))}</td>"
    return f'<td data-value="{_exact(value)}">{shown(value)}</td>'
