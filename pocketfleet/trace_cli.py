"""The command ``convert-trace``; ``cli`` puts it on its program.

Everything heavy is imported inside the command, so that ``--help`` is quick.
"""

from pathlib import Path
from typing import Annotated

import typer

from pocketfleet.errors import InputError
from pocketfleet.printing import print_table

__all__ = ["convert_trace"]


def convert_trace(
    form: Annotated[str, typer.Argument(metavar="FORMAT", help="flash or fedscale.")],
    source: Annotated[Path, typer.Argument(metavar="IN", help="The trace to convert.")],
    out: Annotated[Path, typer.Option(help="The file to write; its name ends in .parquet or .csv.")],
    force: Annotated[bool, typer.Option("--force", help="Replace the file in --out.")] = False,
) -> None:
    """Convert a recorded availability trace to one that fleet.availability takes; nothing in it is run."""
    from pocketfleet.device_sim.trace_events import write_trace
    from pocketfleet.device_sim.trace_formats import read_foreign_trace

    if out.exists() and not force:
        raise InputError(f"{out} is there already: name another file or add --force")
    events, left_out = read_foreign_trace(source, form=form)
    write_trace(events, out)
    typer.echo(f"wrote {out}: {len(events.names):,} devices, {len(events.time_s):,} events")
    print_table([{"left out": what, "number": f"{count:,}"} for what, count in sorted(left_out.items())])
