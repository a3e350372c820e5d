"""The command ``days``; ``cli`` puts it on its program.

Everything heavy is imported inside the command, so that ``--help`` is quick.
"""

import json
from pathlib import Path
from typing import Annotated

import typer

from pocketfleet.errors import InputError
from pocketfleet.printing import print_table

__all__ = ["days"]


def days(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The directory of a finished run.")],
    csv_file: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Write the rows here.")] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="Draw them: a .png, .pdf or .svg.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the rows as JSON.")] = False,
) -> None:
    """How well the global and the phones' own models do on their users' held-out examples, day by day of use."""
    from pocketfleet.device_sim.run import Run
    from pocketfleet.whole_file import write_whole

    opened = Run(run)
    table = opened.personalisation_by_day()
    if table.empty:
        raise InputError(
            f"no update in {run} was measured: no phone held five examples or more when it trained, or none reported"
        )
    if plot is not None:
        opened.plot_days(plot)
    if csv_file is not None:
        if csv_file.is_dir() or not csv_file.parent.is_dir():
            raise InputError(f"{csv_file} cannot be written: name a file in a folder that is there")
        write_whole(csv_file, table.to_csv(index=False, lineterminator="\n"))
    rows = table.to_dict("records")
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    metric = opened.summary["headline_metric"]
    print_table(
        [
            {
                "day": row["day"],
                "updates": row["updates"],
                "phones": row["devices"],
                "examples a phone": f"{row['num_present']:.1f}",
                "held out": f"{row['num_held_out']:.1f}",
                f"{metric}, global": f"{row['metric_global']:.4g}",
                f"{metric}, personalised": f"{row['metric_personalised']:.4g}",
            }
            for row in rows
        ]
    )
