"""What `leakline diff` found: for a person, and as JSON."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import msgspec

from leakline.differences import Difference, Group, Residue
from leakline.durations import in_words
from leakline.reports.style import Style, printable

_NUMBERS_SHOWN = 6
SCHEMA = 1


def render(rounds: Sequence[Difference], left: Sequence[Residue], style: Style) -> str:
    """Text for a terminal, without a line end."""
    lines: list[str] = []
    for number, each in enumerate(rounds, 1):
        lines += [style.paint(f"Action {number} of {len(rounds)}", "bold")] if len(rounds) > 1 else []
        lines += [*_section("opened and still open", each.opened, style, "red")]
        lines += [*_section("opened and closed", each.opened_and_closed, style, "dim")]
        lines += [*_section("open before, closed now", each.closed, style, "dim")] if each.closed else []
        lines.append("")
    if len(rounds) > 1:
        lines += [*_residue(left, len(rounds), style), ""]
    gap = max(each.seconds / max(1, each.looks - 1) for each in rounds)
    looks = sum(each.looks for each in rounds)
    every = in_words(gap) if gap >= 1 else f"{1000 * gap:.0f} ms"
    caution = (
        f"Seen in {looks} looks, one each {every}. What lives for less than that can be missed, and an eventfd, epoll"
        " or timerfd that takes over the number of another looks the same: only a recorder in the process sees each."
    )
    lines += [style.paint(line, "dim") for line in textwrap.wrap(caution, style.width)]
    return "\n".join(lines)


def as_json(pid: int, rounds: Sequence[Difference], left: Sequence[Residue]) -> str:
    """One JSON object, schema 1."""
    return msgspec.json.encode({"schema": SCHEMA, "pid": pid, "rounds": rounds, "residue": left}).decode()


def _section(title: str, groups: Sequence[Group], style: Style, colour: str) -> list[str]:
    total = sum(group.count for group in groups)
    lines = [f"{title}: {style.paint(str(total), colour) if total else 'nothing'}"]
    for group in groups:
        numbers = ", ".join(str(number) for number in group.numbers[:_NUMBERS_SHOWN])
        more = ", …" if len(group.numbers) > _NUMBERS_SHOWN else ""
        lines.append(f"  {group.count:>5}  {group.kind:9}  {printable(group.peer)}  (number {numbers}{more})")
        if group.opened_by:
            lines.append(f"{'':18}opened by {printable(group.opened_by)}")
    return lines


def _residue(left: Sequence[Residue], rounds: int, style: Style) -> list[str]:
    if not left:
        return [style.paint(f"Nothing is left open by every one of the {rounds} actions.", "green")]
    lines = [style.paint(f"Each of the {rounds} actions leaves open:", "red")]
    for item in left:
        lines.append(f"  {item.each:>5}  {item.kind:9}  {printable(item.peer)}")
        if item.opened_by:
            lines.append(f"{'':18}opened by {printable(item.opened_by)}")
    return lines
