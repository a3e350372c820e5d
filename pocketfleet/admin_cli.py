"""The commands ``admin``: what administrators do to a service, running or not, in its state."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["admin"]

admin = typer.Typer(
    help="Administer a service: tokens, pause, release, roll back, revoke, export.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

State = Annotated[Path, typer.Option(metavar="DIR", help="The service's --state.")]
Database = Annotated[
    str, typer.Option(metavar="URL", help="The service's --database.  [default: SQLite in the state folder]")
]
Version = Annotated[int, typer.Argument(help="A version of the model, see: list models.")]


@admin.command()
def token(
    state: State,
    count: Annotated[int, typer.Option(min=1, max=100_000, help="How many.")] = 1,
    database: Database = "",
) -> None:
    """Print new tokens, a line each; a device enrols with one, once."""
    from pocketfleet.training.server.administration import issue_tokens

    for one in issue_tokens(state, count=count, database_url=database):
        typer.echo(one)


@admin.command()
def credential(state: State, database: Database = "") -> None:
    """Print a new credential for the routes of administrators; the one before is void."""
    from pocketfleet.training.server.administration import new_admin_credential

    typer.echo(new_admin_credential(state, database_url=database))


@admin.command()
def pause(state: State, database: Database = "") -> None:
    """Give out no more work; reports on what was given out still count."""
    from pocketfleet.training.server import administration

    administration.pause(state, database_url=database)
    typer.echo("paused; go on with: pocketfleet admin resume")


@admin.command()
def resume(state: State, database: Database = "") -> None:
    """Give out work again."""
    from pocketfleet.training.server import administration

    administration.resume(state, database_url=database)
    typer.echo("work is given out again")


@admin.command()
def release(version: Version, state: State, database: Database = "") -> None:
    """Let devices use this version until: admin unpin; training goes on."""
    from pocketfleet.training.server import administration

    administration.release(state, version, database_url=database)
    typer.echo(f"devices use version {version} from their next check-in on")


@admin.command(name="roll-back")
def roll_back(version: Version, state: State, database: Database = "") -> None:
    """Let devices use an older version again, until: admin unpin."""
    from pocketfleet.training.server import administration

    administration.roll_back(state, version, database_url=database)
    typer.echo(f"devices use version {version} from their next check-in on")


@admin.command()
def unpin(state: State, database: Database = "") -> None:
    """Take a release or roll-back back: the gate, or without one the newest version, decides again."""
    from pocketfleet.training.server import administration

    administration.unpin(state, database_url=database)
    typer.echo("the gate decides again, or without one the newest version is used")


@admin.command()
def revoke(
    device: Annotated[str, typer.Argument(help="A device's id, see: list devices.")],
    state: State,
    database: Database = "",
) -> None:
    """Take a device's credential away."""
    from pocketfleet.training.server import administration

    administration.revoke(state, device, database_url=database)
    typer.echo(f"device {device} takes part no more")


@admin.command()
def export(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The run directory to write.")],
    state: State,
    database: Database = "",
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier run at OUT.")] = False,
) -> None:
    """Write what the service did as a run directory, as a simulation leaves one; devices are numbers in it."""
    from pocketfleet.service_export import export_service

    run = export_service(out, state, database_url=database, force=force)
    typer.echo(f"wrote {run.path}: {run.summary['rounds']} rounds, {run.summary['devices']} devices")
    typer.echo(f"its page: pocketfleet report {run.path}")
