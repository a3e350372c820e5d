"""The command ``report``: a finished run as one HTML page."""

from pathlib import Path
from typing import Annotated

import typer

from pocketfleet.errors import InputError

__all__ = ["report"]


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The directory of a finished run.")],
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="The page.  [default: RUN/report.html]")] = None,
    round_index: Annotated[
        int | None,
        typer.Option("--round", metavar="N", help="Draw this round's timeline.  [default: the median by duration]"),
    ] = None,
) -> None:
    """Write a run's page: learning, a round's timeline, dropouts, phones, fairness, costs, how to run it again."""
    from pocketfleet.device_sim.page import page
    from pocketfleet.device_sim.run import Run
    from pocketfleet.whole_file import write_whole

    opened = Run(run)
    target = run / "report.html" if out is None else out
    if target.is_dir() or not target.parent.is_dir():
        raise InputError(f"--out {target} cannot be written: name a file in a folder that is there")
    content = page(opened, round_index=round_index)
    try:
        write_whole(target, content)
    except OSError as exc:
        raise InputError(f"--out {target} cannot be written: {exc.strerror}") from exc
    typer.echo(f"wrote {target} ({len(content.encode()) / 1e6:.1f} MB)")
