"""How rows are printed in a terminal."""

from typing import Any

__all__ = ["print_table"]


def print_table(rows: list[dict[str, Any]], *, title: str = "") -> None:
    """Print rows, which share their keys, as a table; nothing where there are none."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    if not rows:
        return
    table = Table(box=box.SIMPLE, title=Text(title, style="bold") if title else None, title_justify="left")
    for name in rows[0]:
        table.add_column(name, overflow="fold")
    for row in rows:
        # As text: square brackets are no markup here.
        table.add_row(*(Text(str(value)) for value in row.values()))
    Console(highlight=False).print(table)
