"""The page: what a parser finds in it. How it looks and behaves in a browser is `make hold-page`."""

from __future__ import annotations

import html.parser
import re
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from leakline.facts import Alive, Finding, Frame, Limits, Origin, Recorded, Sample
from leakline.growth import judge
from leakline.observe import Report
from leakline.reports import chart, html_report, icicle

NOW = datetime(2026, 11, 28, 3, 14, 7)
EVIL = '<script>alert("x")</script>\033[2J&\'"'
VOID = {"meta"}


class Page(html.parser.HTMLParser):
    """Checks that elements are closed in order; collects text, tags and attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("style", "script"):
            self.text += data


def frame(function: str, line: int, file: str = "/app/client.py") -> Frame:
    return Frame(function, file, line, "python")


def report(*, text: str = "text", recorded: bool = True, samples: int = 50) -> Report:
    series = tuple(Sample(at * 0.2, 10 + at, {"eventfd": 4 + at, "tcp": 6}) for at in range(samples))
    stack = (frame(f"query {text}", 84), frame("call", 110), frame("<module>", 179))
    origin = Origin(50, stack, opened=60, closed=10, oldest_s=9.0, newest_s=0.1)
    finding = Finding(
        id="growth.eventfd",
        severity="leak",
        title=f"eventfds leak {text}",
        count=54,
        per_second=5.0,
        evidence={"risen": 50, "opened_meanwhile": {f"to {text}": 50}},
        cause=f"cause {text}",
        remedy=f"remedy {text}",
        origins=(origin,),
        harmless=f"harmless {text}",
        next=f"leakline diff {text}",
        threshold=f"threshold {text}",
        ruled_out={f"listeners {text}": {"held": 1}},
    )
    seen = Recorded(f"/r/{text}", "launched", 10.0, True, 70, 10, (Alive("eventfd", origin),), older={f"tcp{text}": 6})
    growth = judge(series, 1024) if samples else None
    return Report(
        pid=1234,
        command=f"python {text}",
        seconds=9.8,
        verdict="leak" if samples else "unknown",
        limit=1024,
        total=60,
        highest=63,
        counts={"eventfd": 54, f"tcp{text}": 6},
        growth=growth.rates() if growth else {},
        seconds_to_limit=193.0,
        findings=(finding,),
        limits=Limits(1024, 4096),
        judged=growth,
        recorded=seen if recorded else None,
        samples=series,
    )


def test_the_page_has_all_that_the_terminal_has() -> None:
    page = Page(html_report.render(report(), NOW, "a descriptor was refused"))
    for told in (
        *(
            "LEAK",
            "eventfd +5.0 per second",
            "a descriptor was refused",
            "1234",
            "60 of 1 024",
            "soft 1 024, hard 4 096",
        ),
        *("growth.eventfd", "eventfds leak", "cause text", "remedy text", "harmless text", "threshold text"),
        *("leakline diff text", "listeners text", "1 held", "likely", "query text", "/app/client.py:84"),
        *("60 opened, 10 closed", "open before the recording began: 6 tcp", "rose by"),
    ):
        assert told in page.text, told


def test_whatever_is_put_in_is_text() -> None:
    page = Page(html_report.render(report(text=EVIL), NOW, EVIL))
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert "\033" not in page.text
    assert page.text.count('alert("x")') > 10
    for _, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")]


def test_nothing_is_loaded_from_anywhere() -> None:
    page = Page(html_report.render(report(), NOW))
    for tag, attributes in page.tags:
        assert tag not in ("img", "link", "iframe", "object", "embed", "base", "form")
        assert not {"src", "href", "srcset", "action", "background"} & attributes.keys()
    source = html_report.render(report(), NOW)
    assert not re.search(r"https?://|url\(|@import|fetch\(|XMLHttpRequest", source)
    (policy,) = [a["content"] for t, a in page.tags if t == "meta" and a.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    assert policy.startswith("default-src 'none'")


@pytest.mark.parametrize(("recorded", "samples"), [(False, 50), (True, 0), (False, 0), (True, 1)])
def test_what_is_not_known_is_left_out(recorded: bool, samples: int) -> None:
    page = Page(html_report.render(report(recorded=recorded, samples=samples), NOW))
    assert ("Where they were opened" in page.text) is recorded
    assert ("over time" in page.text) is (samples > 1)
    assert "None" not in page.text


def test_the_page_stays_small_however_long_was_observed() -> None:
    samples = tuple(Sample(at * 0.1, at % 90, {f"kind{k}": (at * k) % 97 for k in range(12)}) for at in range(20_000))
    drawn = chart.stacked(samples, None)
    assert drawn is not None
    assert len(drawn.areas) == chart.KINDS_SHOWN + 1
    assert sum(len(area.path) for area in drawn.areas) < 60_000


def test_a_burst_of_one_moment_is_seen_in_the_chart() -> None:
    samples = [Sample(at * 0.1, 5, {"tcp": 5}) for at in range(5000)]
    samples[2500] = Sample(250.0, 95, {"tcp": 95})
    drawn = chart.stacked(samples, None)
    assert drawn is not None
    assert min(float(y) for y in re.findall(r" ([\d.]+)", drawn.areas[0].path)) == pytest.approx(5.0)
    points = [point.split(",") for point in chart.spark([(s.at, s.total) for s in samples]).split()]
    assert min(float(y) for _, y in points) == 5.0


@pytest.mark.parametrize(
    ("highest", "top"), [(0, 2), (1, 2), (7, 8), (10, 10), (23, 25), (1019, 1500), (19_500, 20_000)]
)
def test_an_axis_ends_at_a_round_figure(highest: int, top: int) -> None:
    steps = chart.ticks(highest)
    assert steps[0] == 0
    assert steps[-1] == top
    assert 3 <= len(steps) <= 6


def test_the_limit_is_drawn_only_if_it_is_near() -> None:
    samples = [Sample(at * 1.0, 50, {"tcp": 50}) for at in range(5)]
    near, far = chart.stacked(samples, 90), chart.stacked(samples, 20_000)
    assert near is not None
    assert near.limit_at == pytest.approx(10.0)
    assert far is not None
    assert far.limit_at is None


def test_boxes_lie_within_their_caller() -> None:
    shared = frame("main", 1)
    alive = (
        Alive("tcp", Origin(30, (frame("a", 5), frame("serve", 9), shared))),
        Alive("tcp", Origin(10, (frame("b", 6), frame("serve", 9), shared))),
        Alive("file", Origin(60, (frame("c", 7), shared))),
    )
    found = icicle.boxes(alive)
    assert [(box.name, box.count) for box in found if box.depth < 2] == [("all", 100), ("file", 60), ("tcp", 40)]
    serve = next(box for box in found if box.name == "serve")
    assert (serve.left, serve.width, serve.count) == (60.0, 40.0, 40)
    for box in found[1:]:
        assert any(
            each.depth == box.depth - 1
            and each.left <= box.left + 1e-9
            and each.left + each.width >= box.left + box.width - 1e-9
            for each in found
        )
    assert icicle.boxes(()) == ()


def test_a_page_is_written_beside_the_text_and_a_wrong_place_is_told_first(
    targets: Any, cli: Any, tmp_path: Path
) -> None:
    process = targets.start("churn_files")
    page = tmp_path / "report.html"
    ran = cli(str(process.pid), "--for", "300ms", "--html", str(page))
    assert ran.returncode == 0, ran.stderr
    assert str(page) in ran.stderr
    assert f"{process.pid}" in Page(page.read_text()).text
    for wrong in (tmp_path / "no" / "x.html", tmp_path):
        ran = cli(str(process.pid), "--for", "300ms", "--html", str(wrong))
        assert ran.returncode == 2
        assert "folder" in ran.stderr


def test_the_template_engine_is_imported_only_for_a_page() -> None:
    code = "import sys, leakline.commands.doctor, leakline.commands.run; print('jinja2' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"
