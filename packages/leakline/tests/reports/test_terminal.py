"""The terminal report: the verdict comes first, no line is wider than the terminal, nothing beyond ASCII where it
would not arrive.
"""

from __future__ import annotations

import re
from datetime import datetime

import pytest

from leakline.facts import Finding, Frame, Limits, Origin, Sample
from leakline.growth import judge
from leakline.observe import Report
from leakline.reports import live, terminal
from leakline.reports.style import Style
from leakline.rules.standstill import Standstill

NOW = datetime(2026, 3, 1, 3, 13, 43)
FINDING = Finding(
    id="zmq.io-thread-blocked",
    severity="leak",
    title="ZeroMQ I/O thread ZMQbg/IO/0 blocked for 6 s, and eventfds leak beside it: 20 per second",
    count=210,
    per_second=20.0,
    evidence={
        "threads": [
            {
                "tid": 11,
                "name": "ZMQbg/IO/0",
                "wait_channel": "poll_schedule_timeout.constprop.0",
                "blocked_seconds": 6.0,
                "context_switches": 42,
                "samples": 60,
            }
        ],
        "peers": {"to 10.0.0.7:5432, CLOSE_WAIT": 3},
        "seconds_to_limit": 24.0,
    },
    cause="Most likely a socket monitor that is no longer read – its pipe is full.",
    remedy="Read the monitor until after its socket is closed.",
    origins=(Origin(3, (Frame("qry_server_port", "service_cli.py", 41, "python"),)),),
    harmless="Never: no message moves.",
    next="leakline watch 1",
    threshold="1 s asleep outside epoll",
    confidence="possible",
    ruled_out={"listeners": {"held": 1, "opened meanwhile": 0}, "TIME_WAIT": 4},
)


def samples(per_second: float) -> list[Sample]:
    levels = [(index / 10, 10 + int(index / 10 * per_second)) for index in range(101)]
    return [Sample(at, level + 2, {"eventfd": level, "epoll": 2}) for at, level in levels]


def report(per_second: float = 20.0, findings: tuple[Finding, ...] = (FINDING,), limit: int = 692) -> Report:
    growth = judge(samples(per_second), limit)
    return Report(
        pid=1,
        command="python service_cli_demo.py --name " + "x" * 200,
        seconds=10.0,
        verdict=growth.verdict,
        limit=limit,
        total=growth.total,
        highest=240,
        counts={"eventfd": growth.total - 2, "epoll": 2},
        growth=growth.rates(),
        seconds_to_limit=growth.seconds_to_limit,
        findings=findings,
        limits=Limits(limit, 20000),
        judged=growth,
    )


def test_the_first_line_says_what_how_fast_and_until_when() -> None:
    first = terminal.render(report(), Style(width=110), NOW).splitlines()[0]
    assert first == "LEAK  eventfd +20 per second; reaches the limit of 692 in 24 s (at 03:14:07)"


def test_a_finding_has_its_evidence_cause_remedy_origin_and_next_command() -> None:
    text = terminal.render(report(), Style(width=110), NOW)
    for row in (
        "threshold   1 s asleep outside epoll",
        "cause       Most likely a socket monitor that is no longer read – its pipe is full. (possible)",
        "ruled out   listeners 1 (0 new), TIME_WAIT 4",
        "harmless    Never: no message moves.",
        "remedy      Read the monitor until after its socket is closed.",
    ):
        assert f"\n  {row}\n" in text
    for part in ("ZMQbg/IO/0 sleeps in poll_schedule_timeout", "limit in 24.0 s", "3 × to 10.0.0.7:5432, CLOSE_WAIT"):
        assert part in text
    assert "3 × qry_server_port  service_cli.py:41" in text
    assert re.search(r"^  next +leakline watch 1$", text, re.MULTILINE)


def test_steady_says_how_slow_a_leak_would_have_been_hidden() -> None:
    first = terminal.render(report(0.0, ()), Style(width=110), NOW).splitlines()[0]
    assert first == (
        "STEADY  12 of 692 descriptors in use, none pile up; a leak slower than 18 per minute would not show in 10 s"
    )


def test_near_the_limit_and_unknown() -> None:
    assert terminal.headline(report(0.0, (), limit=13), NOW).startswith("12 of 13 descriptors in use")
    assert "observe for" in terminal.headline(report(0.15, ()), NOW)


@pytest.mark.parametrize("width", [40, 64, 80, 110])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    threads = (Standstill(11, "ZMQbg/IO/0", "io", 6.0, "poll_schedule_timeout", 42, 60),)
    style = Style(width=width)
    shown = terminal.render(report(), style, NOW) + "\n" + live.screen(report(), samples(20.0), threads, style, NOW)
    assert max(len(line) for line in shown.splitlines()) <= width


def test_ascii_only_where_nothing_else_arrives() -> None:
    style = Style(width=80, unicode=False)
    assert terminal.render(report(), style, NOW).isascii()
    assert live.screen(report(), samples(20.0), (), style, NOW).isascii()


def test_colours_only_where_they_are_wanted() -> None:
    assert "\033[" in terminal.render(report(), Style(colours=True), NOW)
    assert "\033[" not in terminal.render(report(), Style(), NOW)


def test_a_forecast_on_another_day_has_its_date() -> None:
    assert terminal.moment(NOW, 24) == "at 03:14:07"
    assert terminal.moment(NOW, 86400) == "on 02 Mar at 03:13"
    assert terminal.moment(NOW, 1e9) == "months away"


def test_sparkline() -> None:
    assert Style().sparkline([0, 1, 2, 3, 4, 5, 6, 7], 8) == "▁▂▃▄▅▆▇█"
    assert Style().sparkline([5, 5, 5], 10) == "▁▁▁"
    assert Style().sparkline([], 10) == ""
    assert Style(unicode=False).sparkline([0, 7], 2).isascii()
