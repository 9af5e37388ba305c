"""`datacenter demo`: incident A, played with real processes."""

from __future__ import annotations

import signal
import sys
from datetime import datetime
from types import FrameType

import typer

SHORTEST_S = 60.0  # the naive client needs most of it to die


def demo(
    seconds: float = typer.Option(75.0, "--seconds", min=SHORTEST_S, help="It ends by then, whatever happens."),
    as_json: bool = typer.Option(False, "--json", help="The result as one JSON object."),
) -> None:
    """Play incident A: our client beside one in plain pyzmq, while their service is killed again and again.

    \b
    The naive client leaks and dies at its limit; leakline says why, and foretells when. Ours holds what it had.
    Exit code 0 if that is what was seen, 1 if not (it says what differed).
    The play goes to stderr, the verdicts to stdout.

    \b
    Examples:
      datacenter demo
      datacenter demo --json 2>/dev/null | jq .naive.forecast
    """
    # Imported here: no other command needs them.
    from datacenter.demo.conclusion import conclusion
    from datacenter.demo.display import Display
    from datacenter.demo.play import Play
    from leakline.reports.style import style_of

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            signal.signal(number, _end)
    with Display() as display:
        outcome = Play(seconds, display.show).run()
    if as_json:
        print(outcome.to_json().decode())
    else:
        print(f"\n{conclusion(outcome, style_of(sys.stdout), datetime.now())}")
    raise typer.Exit(1 if outcome.differs() else 0)


def _end(number: int, _frame: FrameType | None) -> None:
    """Leaves in order, through every `with`: no process stays behind."""
    sys.exit(128 + number)
