"""Counting kinds without reading every link says the same as reading them all, whatever is opened and closed."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from leakline import proc

# Obeys: a line is Python, in which `held` is a list of numbers; answers with a line when it is done.
PROGRAM = """
import os, socket, sys
held = [os.open("/dev/null", 0) for _ in range(300)]
for line in sys.stdin:
    exec(line)
    print("done", flush=True)
"""
OPENERS = ("os.eventfd(0)", "os.open('/etc/passwd', 0)", "socket.socket().detach()", "os.memfd_create('a')")
Tell = Callable[[str], None]


@pytest.fixture
def program() -> Iterator[tuple[int, Tell]]:
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stdin=-1, stdout=-1, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        stdin, stdout = process.stdin, process.stdout

        def tell(line: str) -> None:
            stdin.write(line + "\n")
            stdin.flush()
            assert stdout.readline() == "done\n"

        tell("pass")
        yield process.pid, tell
        process.kill()


def counter(pid: int) -> proc.KindCounter:
    return proc.KindCounter(proc.LastingProcess(pid, proc.started(pid)), proc.snapshot(pid).descriptors)


def test_what_is_opened_and_closed_again_is_seen_without_a_whole_look(program: tuple[int, Tell]) -> None:
    pid, tell = program
    counts = counter(pid)
    generator = random.Random(3)
    tell("for number in held[10:40]: os.close(number)")
    tell("del held[10:40]; mine = []")
    assert counts.quick(proc.count(pid)) is None  # old ones were closed
    assert counts.whole() == proc.kinds(pid)
    for _ in range(40):
        tell(f"mine += [{', '.join(generator.choices(OPENERS, k=generator.randrange(1, 8)))}]")
        assert counts.quick(proc.count(pid)) == proc.kinds(pid)
        tell(f"for _ in range({generator.randrange(6)}): mine and os.close(mine.pop({generator.choice((0, -1))}))")
        assert counts.quick(proc.count(pid)) == proc.kinds(pid)


def test_one_kind_in_place_of_another_is_seen_at_once_among_the_young(program: tuple[int, Tell]) -> None:
    pid, tell = program
    counts = counter(pid)
    tell("mine = os.eventfd(0)")
    assert counts.quick(proc.count(pid)) == proc.kinds(pid)
    tell("os.close(mine); mine = os.memfd_create('a')")
    assert counts.quick(proc.count(pid)) == proc.kinds(pid)


def test_one_kind_in_place_of_another_is_seen_by_the_next_whole_look_among_the_old(program: tuple[int, Tell]) -> None:
    pid, tell = program
    counts = counter(pid)
    before = proc.kinds(pid)
    tell("os.close(held[200]); mine = os.memfd_create('a')")
    assert counts.quick(proc.count(pid)) == before
    assert counts.whole() == proc.kinds(pid) != before


def test_numbers_far_above_are_a_reason_for_a_whole_look(program: tuple[int, Tell]) -> None:
    pid, tell = program
    counts = counter(pid)
    tell("os.dup2(held[0], 900)")
    assert counts.quick(proc.count(pid)) is None
    assert counts.whole() == proc.kinds(pid)
