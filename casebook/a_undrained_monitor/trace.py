"""Who makes a socket's eventfd, who closes it, and which signal is missing when the I/O thread is blocked: from strace.

    python casebook/a_undrained_monitor/trace.py

Threads of libzmq send each other commands; whoever sends the first into an empty mailbox writes to the eventfd of that
mailbox (signaler.cpp:146). So the reads and writes of eventfds are the story of a socket's life and end. It is told for
six sockets: three while all is well, three after the monitor of another socket has blocked the I/O thread.
"""

from __future__ import annotations

import re
import sys
import tempfile
import time
from pathlib import Path

if __name__ == "__main__":  # run as a script: the casebook is imported from the root of the repository
    sys.path.insert(0, str(Path(__file__).parents[2]))

import msgspec
from casebook.nearby import answering_server
from casebook.runner.programs import built

from datacenter.testing import Process, free_port
from leakline import proc

BLOCKED_WITHIN_S = 60.0
POLL_S = 0.05
AFTERWARDS_S = 0.1  # what the threads say later is about something else
#: whose eventfds the program makes, in this order
MADE = (
    "context",
    "reaper",
    "I/O thread",
    "session",
    "reader",
    "monitor",
    "healthy: a socket that was never connected",
    "healthy: a socket that was connected, and sent nothing",
    "healthy: a socket that asked a question",
    "blocked: a socket that was never connected",
    "blocked: a socket that was connected, and sent nothing",
    "blocked: a socket that asked a question",
)
THREADS = {"ZMQbg/Reaper": "reaper", "ZMQbg/IO/0": "I/O thread"}
_LINE = re.compile(r"^\d+<(?P<thread>[^>]*)>\s+(?P<at>[\d.]+) (?P<call>.*)$")
_MAKES = re.compile(r"eventfd2.*= (\d+)<")
_DOES = re.compile(r"(read|write|close)\((\d+)<anon_inode:\[eventfd\]>")


class Act(msgspec.Struct, frozen=True):
    """What one thread did to the eventfd of one mailbox. `at`: seconds."""

    at: float
    thread: str
    what: str  # makes, read, write, close
    whose: str


def acts(trace: str) -> list[Act]:
    """What strace saw of eventfds, in order."""
    made = iter(MADE)
    owners: dict[str, str] = {}
    found = []
    for line in trace.splitlines():
        seen = _LINE.match(line)
        if seen is None:
            continue
        at, thread = float(seen["at"]), THREADS.get(seen["thread"], "program")
        if makes := _MAKES.search(seen["call"]):
            owners[makes[1]] = next(made, "another")
            found.append(Act(at, thread, "makes", owners[makes[1]]))
        elif does := _DOES.match(seen["call"]):
            found.append(Act(at, thread, does[1], owners.get(does[2], "another")))
    return found


def story(found: list[Act], name: str) -> list[str]:
    """The life of one socket, and what the threads told each other meanwhile."""
    begin = next(index for index, act in enumerate(found) if act.whose == name)
    end = next((index for index, act in enumerate(found) if index > begin and act.what == "makes"), len(found))
    told = [act for act in found[begin:end] if act.whose in (name, "reaper", "I/O thread")]
    closed = next((act.at for act in told if act.what == "close" and act.whose == name), None)
    told = [act for act in told if closed is None or act.at < closed + AFTERWARDS_S]
    lines = [f"{(act.at - told[0].at) * 1000:8.1f} ms  {act.thread:<10}  {_words(act, name)}" for act in told]
    if closed is None:
        lines.append(f"{'':8}     nobody      closes it")
    return lines


def _words(act: Act, name: str) -> str:
    whose = "this socket" if act.whose == name else f"the {act.whose}"
    return {
        "makes": "makes the eventfd of its mailbox",
        "write": f"has a command for {whose}",
        "read": f"looks into the mailbox of {whose}",
        "close": "closes it",
    }[act.what]


def main() -> None:
    client = built(Path(__file__).with_name("traced.cpp"), ("zmq",))
    nowhere = f"tcp://127.0.0.1:{free_port()}"
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "trace"
        calls = ["-e", "trace=eventfd2,read,write,close"]
        strace = ["strace", "-f", "-y", "--decode-pids=comm", "-ttt", *calls, "-o", str(output)]
        traced = Process([*strace, str(client), answering_server(), nowhere])
        try:
            traced.wait_line("closed")
            traced.tell("")
            traced.wait_line("connecting")
            _wait_blocked(traced.pid)
            traced.tell("")
            traced.wait_line("closed", after=2)
            traced.tell("")
            traced.wait()
        finally:
            traced.release()
        found = acts(output.read_text())
    for name in MADE[6:]:
        print(name, *story(found, name), "", sep="\n")


def _wait_blocked(strace: int) -> None:
    """Until the I/O thread sleeps in poll instead of epoll."""
    (client,) = (int(pid) for pid in Path(f"/proc/{strace}/task/{strace}/children").read_text().split())
    end = time.monotonic() + BLOCKED_WITHIN_S
    while time.monotonic() < end:
        threads = [thread for thread in proc.threads(client) if thread.name == "ZMQbg/IO/0"]
        if all((thread.wait_channel or "").startswith("poll_schedule") for thread in threads):
            return
        time.sleep(POLL_S)
    raise SystemExit(f"the I/O thread was not blocked within {BLOCKED_WITHIN_S:g} s")


if __name__ == "__main__":
    main()
