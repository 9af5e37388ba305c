"""The ledger equals /proc: over a whole life of sockets, under fork, and beside threads that open other things.

What needs a process without a zmq.Context of its own, or forks, is a program in ledger_programs/.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from datacenter.sockets import runtime_directory
from datacenter.sockets.ledger_compare import compare, fits
from leakline.recorder import Entry
from said import said

PROGRAMS = Path(__file__).parent / "ledger_programs"


def run(*command: str, directory: Path, seconds: float = 100) -> str:
    """Runs Python in a process of its own, warnings as errors; returns what it printed."""
    done = subprocess.run(
        [sys.executable, "-W", "error", *command],
        capture_output=True,
        text=True,
        timeout=seconds,
        env={**os.environ, "DATACENTER_RUNTIME_DIR": str(directory)},
    )
    assert done.returncode == 0, done.stderr
    assert not said(done.stderr)
    return done.stdout


def run_source(source: str, directory: Path) -> list[str]:
    return run("-c", textwrap.dedent(source), directory=directory).splitlines()


def test_the_ledger_equals_proc_at_every_step_of_a_life(tmp_path: Path) -> None:
    verdict, foreign = run(str(PROGRAMS / "life_cycle.py"), str(tmp_path), directory=tmp_path / "run").split()
    assert verdict == "ok"
    assert int(foreign) > 1000, "the other threads did too little to prove anything"


def test_forked_children_close_exactly_what_they_inherited(tmp_path: Path) -> None:
    verdict, closed = run(str(PROGRAMS / "fork_under_load.py"), "100", directory=tmp_path).split()
    assert verdict == "ok"
    assert int(closed) > 100 * 6
    assert list(tmp_path.iterdir()) == []


def test_a_context_that_was_there_first_makes_it_probable(tmp_path: Path) -> None:
    source = """
        import zmq
        from datacenter.sockets.ledger import Ledger, compare_with_proc
        context = zmq.Context()
        if {started}:
            context.socket(zmq.PUB).close()
        ledger = Ledger.open()
        print(ledger.exact, "|", ledger.reason, "|", ledger.statistics().open)
        context.term()
        ledger.close()
        ledger = Ledger.open()
        print(ledger.exact)
        ledger.close()
    """
    for started in (True, False):
        first, second = run_source(source.format(started=started), tmp_path)
        assert first == "False | a zmq.Context existed before the ledger was opened | 0"
        assert second == "True"


def test_eventfds_of_others_do_not_make_it_probable(tmp_path: Path) -> None:
    source = """
        import ctypes, zmq
        from datacenter.sockets.ledger import Ledger
        ctypes.CDLL(None).eventfd(0, 0)
        print(Ledger.open().exact)
    """
    assert run_source(source, tmp_path) == ["True"]


def test_without_the_library_it_is_probable_and_everything_goes_on(tmp_path: Path) -> None:
    source = """
        import os, zmq
        from pathlib import Path
        import leakline.recorder.library as native
        native.LIBRARY = Path("/nowhere/libleakline.so")
        from datacenter.sockets.ledger import Ledger, open_descriptors
        baseline = open_descriptors()
        ledger = Ledger.open()
        with ledger.owner("context"):
            context = zmq.Context()
        ends = os.pipe()
        for number in ends:
            ledger.register(number, "pipe", "wake-up")
        assert not ledger.assign(ends[0], "client")
        print(ledger.exact, ledger.path, [(entry.number in ends, entry.owner) for entry in ledger.entries()])
        context.term()
        print(ledger.unexplained(baseline))
        pid = os.fork()
        if pid == 0:
            os._exit(2 - len(open_descriptors().keys() & set(ends)))
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        for number in ends:
            ledger.forget(number)
        print(ledger.entries())
        ledger.close()
    """
    assert run_source(source, tmp_path) == [
        "False None [(True, 'wake-up'), (True, 'wake-up')]",
        "()",
        "2",
        "[]",
    ]


def test_one_ledger_a_process_closed_by_its_last_user(tmp_path: Path) -> None:
    source = """
        from datacenter.sockets.ledger import Ledger
        first, second = Ledger.open(), Ledger.open()
        modes = [oct(path.stat().st_mode) for path in (first.path, first.path.parent)]
        print(first is second, first.path.suffix, *modes)
        first.close()
        print(first.path.exists())
        second.close()
        second.close()
        print(first.path.exists())
    """
    assert run_source(source, tmp_path / "made") == ["True .ledger 0o100600 0o40700", "True", "False"]


@pytest.mark.parametrize("trick", ["link", "file", "open to all"])
def test_a_directory_that_is_not_safe_is_not_used(tmp_path: Path, trick: str) -> None:
    directory = tmp_path / "run"
    if trick == "link":
        (tmp_path / "victim").mkdir()
        directory.symlink_to(tmp_path / "victim")
    elif trick == "file":
        directory.touch()
    else:
        directory.mkdir()
        directory.chmod(0o777)
    source = """
        import zmq
        from datacenter.sockets.ledger import Ledger, open_descriptors
        baseline = open_descriptors()
        ledger = Ledger.open()
        context = zmq.Context()
        print(ledger.exact, ledger.path, bool(ledger.unpublished), len(ledger.entries()), ledger.unexplained(baseline))
    """
    assert run_source(source, directory) == ["True None True 1 ()"]
    with pytest.raises(PermissionError):
        runtime_directory.prepare(directory)
    assert not list(tmp_path.glob("victim/*"))


def test_ledgers_of_killed_processes_are_swept(tmp_path: Path) -> None:
    source = """
        import os, signal
        from datacenter.sockets.ledger import Ledger
        Ledger.open()
        os.kill(os.getpid(), signal.SIGKILL)
    """
    command = [sys.executable, "-c", textwrap.dedent(source)]
    subprocess.run(command, env={**os.environ, "DATACENTER_RUNTIME_DIR": str(tmp_path)}, check=False)
    (tmp_path / "1.ledger").write_text("not ours to judge")
    (stale,) = set(tmp_path.iterdir()) - {tmp_path / "1.ledger"}
    assert runtime_directory.sweep(tmp_path) == 1
    assert not stale.exists()
    assert (tmp_path / "1.ledger").exists()


def test_the_directory_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DATACENTER_RUNTIME_DIR", "/a/b")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert runtime_directory.default() == Path("/a/b")
    monkeypatch.delenv("DATACENTER_RUNTIME_DIR")
    assert runtime_directory.default() == tmp_path / "datacenter"
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "absent"))
    assert runtime_directory.default() == Path(f"/tmp/datacenter-{os.geteuid()}")


def entry(number: int, kind: str, inode: int | None = None) -> Entry:
    return Entry(number, kind, "somebody", 0.0, 1, "opened", 1, inode)


@pytest.mark.parametrize(
    ("kind", "inode", "target", "expected"),
    [
        ("eventfd", None, "anon_inode:[eventfd]", True),
        ("eventfd", None, "anon_inode:[eventpoll]", False),
        ("epoll", None, "anon_inode:[eventpoll]", True),
        ("tcp", 7, "socket:[7]", True),
        ("tcp", 7, "socket:[77]", False),
        ("unix", None, "socket:[77]", True),
        ("pipe", None, "/etc/passwd", False),
        ("file", None, "/etc/passwd", True),
        ("pidfd", None, "pidfd:[12]", True),
        ("other", None, "anything", True),
    ],
)
def test_identity_is_more_than_the_number(kind: str, inode: int | None, target: str, expected: bool) -> None:
    assert fits(entry(3, kind, inode), target) is expected


def test_every_difference_is_named() -> None:
    links = {0: "/dev/null", 3: "anon_inode:[eventfd]", 4: "/etc/passwd", 6: "pipe:[5]"}
    entries = [entry(3, "eventfd"), entry(4, "epoll"), entry(5, "tcp", 9)]
    found = compare(entries, links, settled=True, exact=True)
    assert [each.number for each in found.owned] == [3]
    assert found.unexplained({0: "/dev/null", 6: "pipe:[4]"}) == (
        "6 (pipe:[5]) is open and in no ledger",
        "5 (tcp of somebody) is in the ledger and not open",
        "4 (epoll of somebody) is in the ledger, but is /etc/passwd now",
    )
    assert compare(entries[:1], {3: links[3]}, settled=True, exact=True).unexplained({}) == ()


def test_a_table_that_hooks_nothing_takes_nothing_from_the_ledger(tmp_path: Path) -> None:
    source = """
        import zmq
        from datacenter.sockets.ledger import Ledger
        from leakline.recorder import DescriptorTable
        ledger, table = Ledger.open(), DescriptorTable.create()
        table.hook_library("libnobodyhasthis")
        for _ in range(2):
            with zmq.Context() as context, context.socket(zmq.PAIR) as socket:
                print(int(socket.FD) in {entry.number for entry in ledger.entries()})
            table.close()
        ledger.close()
    """
    assert run_source(source, tmp_path) == ["True", "True"]
