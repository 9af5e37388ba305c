"""How the play is shown while it runs: a live table on a terminal, a few plain lines where stderr is none."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from datacenter.demo.scene import Row, Scene
from leakline.reports.style import grouped

LIVE_EVERY_S = 0.25
PLAIN_EVERY_S = 8.0
EVENTS_SHOWN = 4
INTRODUCTION = (
    "incident A: two clients of one service, ours and one in plain pyzmq, while the service is killed again and again"
)
_COLOURS = {"leak": "bold red", "near-limit": "yellow", "steady": "green", "unknown": "dim", "ended": "bold red"}


class Display:
    """Shows each scene it is given, as often as is calm. A context manager; use it from one thread."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._console = Console(file=stream or sys.stderr, highlight=False)
        # Without a thread of its own: children are bound to the thread that starts them, and there is but one.
        self._live = Live(console=self._console, auto_refresh=False) if self._console.is_terminal else None
        self._shown_at = 0.0
        self._told = 0

    def __enter__(self) -> Display:
        if self._live is not None:
            self._live.start()
        else:
            self._line(INTRODUCTION)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, scene: Scene) -> None:
        """Bring the display up to date, if it is time to."""
        over = scene.stage == "over"
        if self._live is not None:
            if over or scene.elapsed_s - self._shown_at >= LIVE_EVERY_S:
                self._shown_at = scene.elapsed_s
                self._live.update(screen(scene, self._console.width), refresh=True)
            return
        for at, text in scene.events[self._told :]:
            self._line(f"{at:5.1f} s  {text}")
        self._told = len(scene.events)
        if over or scene.elapsed_s - self._shown_at >= PLAIN_EVERY_S:
            self._shown_at = scene.elapsed_s
            for number, row in enumerate(scene.rows):
                clock = "" if number else f"{scene.elapsed_s:5.1f} s"
                self._line(f"{clock:7}  {plain(row)}")

    def _line(self, text: str) -> None:
        print(text, file=self._console.file, flush=True)


def screen(scene: Scene, width: int) -> RenderableType:
    """The table with what happened last under it; fits 80 columns and 24 lines."""
    wide = width >= 100
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", expand=False)
    table.add_column("process", no_wrap=True)
    if wide:
        table.add_column("pid", justify="right", no_wrap=True)
    table.add_column("descriptors", justify="right", no_wrap=True)
    table.add_column("by kind")
    table.add_column("growth", justify="right", no_wrap=True)
    table.add_column("calls", justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for row in scene.rows:
        growth = f"+{row.per_second:.0f}/s" if row.per_second else "0"
        verdict = _verdict(row)
        cells: list[Text | str] = [
            Text(row.name, "bold" if "client" in row.name else ""), str(row.pid), _used(row), kinds(row.counts),
            Text(growth if row.alive else "", "red" if row.per_second else "dim"),
            "" if row.answered is None else grouped(row.answered), Text(verdict, _COLOURS.get(verdict, "dim")),
        ]  # fmt: skip
        table.add_row(*(cells if wide else cells[:1] + cells[2:]))
    lines = [Text(f"{at:5.1f} s  {text}", "dim") for at, text in scene.events[-EVENTS_SHOWN:]]
    return Group(headline(scene), forecast(scene), table, Text(), *lines)


def headline(scene: Scene) -> Text:
    """Where the play is."""
    text = Text(f"incident A  {scene.elapsed_s:.0f} s of at most {scene.seconds:.0f} s  ", "bold")
    text.append(scene.stage, "yellow" if "away" in scene.stage else "")
    return text


def forecast(scene: Scene) -> Text:
    """What leakline foretells by now; an empty line while it foretells nothing."""
    for row in scene.rows:
        if row.alive and row.blocked and row.left_s is not None:
            text = f"leakline: the {row.name}'s I/O thread is blocked; out of descriptors in {row.left_s:.0f} s"
            return Text(text, "red")
    return Text()


def plain(row: Row) -> str:
    """`naive client  558 of 1 024   99 calls  leak +32/s   eventfd=550 epoll=2 …`."""
    if not row.alive:
        return f"{row.name:12}  {_verdict(row)}"
    calls = "" if row.answered is None else f"{grouped(row.answered)} calls"
    verdict = _verdict(row) + (f" +{row.per_second:.0f}/s" if row.per_second else "")
    return f"{row.name:12}  {_used(row):>12}  {calls:>11}  {verdict:10}  {kinds(row.counts)}".rstrip()


def kinds(counts: dict[str, int]) -> str:
    """`eventfd=550 epoll=2 tcp=1`: the most first."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return " ".join(f"{kind}={count}" for kind, count in ordered)


def _used(row: Row) -> str:
    if not row.counts:
        return ""
    total = grouped(sum(row.counts.values()))
    return total if row.limit is None else f"{total} of {grouped(row.limit)}"


def _verdict(row: Row) -> str:
    if not row.alive:
        return "ended"
    if not row.counts:
        return "starting"
    return "too early" if row.verdict == "unknown" else row.verdict
