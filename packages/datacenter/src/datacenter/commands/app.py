"""The subcommands of datacenter: one a file, its docstring is its help."""

from __future__ import annotations

import typer

from datacenter.commands.call import call
from datacenter.commands.demo import demo
from datacenter.commands.doctor import doctor
from datacenter.commands.drain import drain
from datacenter.commands.fds import fds
from datacenter.commands.ls import ls
from datacenter.commands.proxy import proxy
from datacenter.commands.serve import serve
from datacenter.commands.stats import stats
from datacenter.commands.up import up
from datacenter.commands.watchdog import watchdog
from datacenter.version import __version__

app = typer.Typer(
    name="datacenter",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Services that find each other and talk over ZeroMQ, and account for every descriptor they open.\n\n"
    "Start with:  datacenter up &  datacenter serve module:service &  datacenter call greeter.hello '\"Ann\"'",
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"datacenter {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Show the version and exit."
    ),
) -> None:
    pass


for command in (up, serve, ls, stats, call, drain, watchdog, proxy, fds, demo):
    app.command()(command)
app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []})(
    doctor
)
