"""The command line of leakline. One subcommand a file; its docstring is its help. `main` is the console script.

This file imports next to nothing by itself: what takes time is imported inside `main`, whose user may press Ctrl-C at
any moment, or have no descriptor left to import with.
"""

from __future__ import annotations

import errno
import sys

from leakline.errors import LeaklineError
from leakline.figures import printable

INTERRUPTED = 130  # 128 + SIGINT, as shells report it


def main() -> None:
    """Run the command line; ends the process."""
    try:
        _run()
    except LeaklineError as error:
        _complain(str(error), error.exit_code)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except OSError as error:
        if error.errno not in (errno.EMFILE, errno.ENFILE):
            raise
        _complain(
            f"leakline itself may open no more descriptors ({error.strerror})\n"
            "  raise its limit in this shell: ulimit -n 1024",
            3,
        )


def _run() -> None:
    from leakline.commands.app import app
    from leakline.reports.style import check_stdout

    if sys.argv[1:2] != ["run"]:  # whose report goes to stderr, and whose command has its own streams
        check_stdout()
    app(sys.argv[1:])(prog_name="leakline")


def _complain(text: str, code: int) -> None:
    if sys.stderr is not None:
        for line in f"leakline: {text}".split("\n"):
            print(printable(line), file=sys.stderr)
    sys.exit(code)
