"""The command ``serve``: the service that real phones, and emulated ones, talk to."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["serve"]


def serve(
    experiment: Annotated[str, typer.Argument(help="A packaged experiment, or a path to a TOML file.")],
    state: Annotated[Path, typer.Option(metavar="DIR", help="The folder of everything that must survive.")],
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a key, such as rounds.cohort=20.")
    ] = None,
    host: Annotated[str, typer.Option(help="An address of this machine; 0.0.0.0: all of them.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: a free one.")] = 8080,
    tls_cert: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The certificate with its chain, PEM.  [default: plain HTTP]")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(metavar="FILE", help="The certificate's key, PEM.")] = None,
    database: Annotated[
        str,
        typer.Option(metavar="URL", help="postgresql+psycopg://USER@HOST/NAME.  [default: SQLite in the state folder]"),
    ] = "",
) -> None:
    """Serve a population of devices; the same rounds as a simulation's, by the clock on the wall."""
    from pocketfleet.experiment import Experiment
    from pocketfleet.serving import serve as run

    def ready(url: str) -> None:
        typer.echo(f"serving {url}")
        typer.echo(f"tokens for devices: pocketfleet admin token --state {state}")

    def waiting() -> None:
        typer.echo("waiting for the process that serves this state to end")

    run(
        Experiment.load(experiment, settings or []),
        state,
        host=host,
        port=port,
        certificate=tls_cert,
        key=tls_key,
        database_url=database,
        ready=ready,
        waiting=waiting,
    )
