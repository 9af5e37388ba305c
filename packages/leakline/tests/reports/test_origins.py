"""Origins for a person at a terminal."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from leakline.facts import Frame, Origin
from leakline.reports.origins import origin_lines, short_name
from leakline.reports.style import Style

ZMQ = "/usr/lib/x86_64-linux-gnu/libzmq.so.5"
CLIENT = "/home/app/bin/client"
QUERY = Frame("app::Client<std::vector<int> >::QryServerPort(int)", "/home/app/src/client.cpp", 42, "native", CLIENT)
STACK = (
    Frame("libzmq.so.5+0x1119", ZMQ, 0, "native", ZMQ),
    Frame("zmq_socket", ZMQ, 0, "native", ZMQ),
    Frame("zmq::socket_t::socket_t(zmq::context_t&, int)", "/usr/include/zmq.hpp", 1890, "native", CLIENT),
    QUERY,
    Frame("main", "/home/app/src/client.cpp", 80, "native", CLIENT),
)
PYTHON = (
    Frame("os_open", "/usr/bin/python3.11", 0, "native", "/usr/bin/python3.11"),
    Frame("NamedTemporaryFile", "/usr/lib/python3.11/tempfile.py", 563, "python"),
    Frame("Report.save", "/home/app/report.py", 12, "python"),
    Frame("<module>", "/home/app/report.py", 40, "python"),
)
FIRST = Origin(1204, STACK, 3, 2, 1210, 6, 260.0, 1.0, 4.6)


def test_the_line_to_look_at_comes_first_then_the_way_to_it() -> None:
    assert origin_lines([Origin(7, PYTHON, 2), FIRST], Style(width=80)) == [
        "  1 204 × app::Client<…>::QryServerPort  /home/app/src/client.cpp:42",
        "      1 210 opened, 6 closed, first 4 min 20 s ago, last 1.0 s ago, by 2 call",
        "      paths, most often this one",
        "      zmq_socket  libzmq.so.5  (+1)",
        "      zmq::socket_t::socket_t  zmq.hpp:1890",
        "      app::Client<…>::QryServerPort  /home/app/src/client.cpp:42",
        "      main  /home/app/src/client.cpp:80",
        "",
        "  7 × Report.save  /home/app/report.py:12",
        "      os_open  python3.11",
        "      NamedTemporaryFile  tempfile.py:563",
        "      Report.save  /home/app/report.py:12",
        "      <module>  /home/app/report.py:40",
    ]


def test_origins_with_one_headline_are_one_block() -> None:
    other = (QUERY, Frame("worker", "/home/app/src/worker.cpp", 3, "native", CLIENT))
    lines = origin_lines([Origin(2, other, 0), Origin(5, STACK, 3)], Style(width=80))
    assert lines[0].startswith("  7 × app::Client<…>::QryServerPort")
    assert not [line for line in lines if "worker" in line]


def test_only_the_largest_are_shown_and_the_rest_is_counted() -> None:
    many = [Origin(n, (Frame(f"query_{n}", "/home/app/client.py", n, "python"),)) for n in range(1, 9)]
    lines = origin_lines(many, Style(width=80), most=2)
    assert [line for line in lines if "×" in line] == [
        "  8 × query_8  /home/app/client.py:8",
        "  7 × query_7  /home/app/client.py:7",
    ]
    assert lines[-1] == "  21 more by 6 other origins"


def test_a_stack_without_names_still_says_where() -> None:
    frames = tuple(Frame(f"client+0x{at:x}", CLIENT, 0, "native", CLIENT) for at in (1, 2, 3))
    assert origin_lines([Origin(1, frames)], Style(width=80)) == [
        "  1 × client+0x1",
        "      client+0x1",
        "      client+0x3  (+1)",
    ]


def test_no_origins_no_lines() -> None:
    assert origin_lines([], Style()) == []
    assert origin_lines([Origin(3, ())], Style()) == []


FRAMES = some.builds(
    Frame,
    some.text(min_size=1, max_size=120),
    some.one_of(some.just(""), some.text(max_size=120), some.just("/usr/include/" + "deep/" * 30 + "a.hpp")),
    some.integers(0, 10**6),
    some.sampled_from(("python", "native")),
    some.sampled_from(("", ZMQ, CLIENT)),
)


@settings(deadline=None)  # about widths, whatever the machine is busy with
@given(some.lists(FRAMES, min_size=1, max_size=30), some.sampled_from((40, 64, 80, 110)), some.integers(0, 10**6))
def test_no_line_is_wider_than_the_terminal_or_broken(frames: list[Frame], width: int, count: int) -> None:
    for line in origin_lines([Origin(count, tuple(frames), len(frames) - 1)], Style(width=width)):
        assert len(line) <= width
        assert line.isprintable()


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("main", "main"),
        ("app::query(int, char const*)", "app::query"),
        ("app::Cache<std::map<int, int> >::get(int) const", "app::Cache<…>::get"),
        ("int app::apply<int, app::Later>(app::Later&&)", "app::apply<…>"),
        ("app::(anonymous namespace)::hidden(std::function<int (int)> const&)", "app::(anonymous namespace)::hidden"),
        ("main::{lambda(int)#1}::operator()(int) const", "main::{lambda(int)#1}::operator()"),
        ("app::Handle::operator->() const", "app::Handle::operator->"),
        ("operator new(unsigned long)", "operator new"),
        ("bool operator< <int>(A const&, B<int> const&)", "operator< <…>"),
        ("<std::fs::File as std::io::Read>::read", "<std::fs::File as std::io::Read>::read"),
        ("r::apply::<r::main::{closure#2}>", "r::apply::<r::main::{closure#2}>"),
        ("<module>", "<module>"),
        ("main.<locals>.<lambda>", "main.<locals>.<lambda>"),
    ],
)
def test_short_names(name: str, short: str) -> None:
    assert short_name(name) == short
