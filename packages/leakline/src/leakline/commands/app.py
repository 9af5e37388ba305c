"""The commands of leakline, put together: what `leakline --help` shows, and which one is meant when none is named."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from leakline import __version__
from leakline.commands.attach import attach
from leakline.commands.diff import diff
from leakline.commands.doctor import doctor
from leakline.commands.ls import ls
from leakline.commands.report import report
from leakline.commands.run import RunCommand, run
from leakline.commands.watch import watch

_OWN_OPTIONS = frozenset({"--help", "--version", "--install-completion", "--show-completion"})

EPILOG = "Exit codes: 0 nothing found, 1 a leak or warning, 2 wrong usage, 3 could not observe."


class DoctorByDefault(TyperGroup):
    """`leakline 1234` means `leakline doctor 1234`: whatever is no subcommand and no option of leakline itself."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0].partition("=")[0] not in _OWN_OPTIONS:
            args = ["doctor", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    name="leakline",
    cls=DoctorByDefault,
    no_args_is_help=True,
    rich_markup_mode=None,  # plain help: rich would take longer to import than all the rest
    pretty_exceptions_enable=False,
    epilog=EPILOG,
    context_settings={"help_option_names": ["--help", "-h"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"leakline {__version__}")
        raise typer.Exit


@app.callback()
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
    leakline diff 1234             what does one action leave open?
    leakline run -- ./server       launch it with the recorder: which line opened what is open
    leakline attach 1234           the same for a process that runs already
    leakline report FILE           what a recording says, also of a process that was killed
    """


app.command("doctor")(doctor)
app.command("ls")(ls)
app.command("watch")(watch)
app.command("diff")(diff)
app.command("run", cls=RunCommand, context_settings={"allow_interspersed_args": False})(run)
app.command("attach")(attach)
app.command("report")(report)
