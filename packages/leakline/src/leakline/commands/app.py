"""The commands of leakline, put together: what `leakline --help` shows, and which one is meant when none is named.

Only the command that is meant is imported: to import all of them takes longer than most of them run.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from leakline import __version__

COMMANDS = ("doctor", "ls", "watch", "diff", "holders", "run", "attach", "report")  # each a module and a function in it
_OWN_OPTIONS = frozenset({"--help", "--version", "--install-completion", "--show-completion"})

EPILOG = "Exit codes: 0 nothing found, 1 a leak or warning, 2 wrong usage, 3 could not observe."


class DoctorByDefault(TyperGroup):
    """`leakline 1234` means `leakline doctor 1234`: whatever is no subcommand and no option of leakline itself."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in COMMANDS and args[0].partition("=")[0] not in _OWN_OPTIONS:
            args = ["doctor", *args]
        return super().parse_args(ctx, args)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"leakline {__version__}")
        raise typer.Exit


def leakline(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Says whether a process leaks file descriptors: which kind, how fast, until when, why, and what to change.

    `run` and `attach` load a recorder, which names the lines; all else only reads: the process is not stopped, and
    nothing is loaded into it.

    \b
    leakline 1234                  observe process 1234 for 10 s, then report (doctor)
    leakline nginx --for 1m        the same by name, for a minute
    leakline 1234 --limit 1024     how long until 1024, whatever ulimit says
    leakline ls 1234               every descriptor: kind, peer, state
    leakline watch 1234            live, a small chart per kind
    leakline holders :8080         who holds this port, or a file: leakline holders PATH
    leakline diff 1234             what does one action leave open?
    leakline run -- ./server       launch it with the recorder: which line opened what is open
    leakline attach 1234           the same for a process that runs already
    leakline report FILE           what a recording says, also of a process that was killed
    """


def app(words: Sequence[str]) -> typer.Typer:
    """The command line for these words: with the one command that they mean, or with all for help and completion."""
    built = typer.Typer(
        name="leakline",
        cls=DoctorByDefault,
        no_args_is_help=True,
        rich_markup_mode=None,  # plain help: rich would take longer to import than all the rest
        pretty_exceptions_enable=False,
        epilog=EPILOG,
        context_settings={"help_option_names": ["--help", "-h"]},
    )
    built.callback()(leakline)
    for name in _meant(words):
        module = importlib.import_module(f"leakline.commands.{name}")
        built.command(name, **getattr(module, "SETTINGS", {}))(getattr(module, name))
    return built


def _meant(words: Sequence[str]) -> tuple[str, ...]:
    first = words[0] if words else "--help"
    if first in ("-h", "--help") or first.partition("=")[0] in _OWN_OPTIONS or "_LEAKLINE_COMPLETE" in os.environ:
        return COMMANDS
    return (first,) if first in COMMANDS else ("doctor",)
