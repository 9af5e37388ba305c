"""Options that several subcommands have."""

from __future__ import annotations

import math

import typer

from datacenter.client import DEFAULT_BROKER

BROKER_OPTION = typer.Option(
    DEFAULT_BROKER,
    "--broker",
    "-b",
    envvar="DATACENTER_BROKER",
    metavar="tcp://HOST:PORT",
    help="The broker's address, or those of several that share a registry: tcp://A:7700,tcp://B:7700.",
)
WATCHERS_REGISTRY_OPTION = typer.Option(
    "",
    "--registry",
    metavar="zookeeper://HOST:PORT,…/PATH",
    help="Instead of --broker: the registry itself, which the family's watcher then connects to.",
)
INSECURE_OPTION = typer.Option(
    False, "--insecure", help="Go beyond loopback although nothing protects what is said there."
)
VERBOSE_OPTION = typer.Option(0, "--verbose", "-v", count=True, help="Say more on stderr; twice: every socket event.")


def seconds(value: float) -> float:
    """Callback of an option in seconds: a range alone lets `nan` pass."""
    if math.isnan(value):
        raise typer.BadParameter("nan is no number of seconds")
    return value
