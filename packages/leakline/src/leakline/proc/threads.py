"""The threads of a process at one moment: name, state, where each waits in the kernel, how often it was switched."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection

import msgspec

from leakline.facts import Thread
from leakline.proc.process import Process
from leakline.proc.waits import read_wait

# What sigfillset() and pthread_sigmask() leave: all but KILL, STOP and the two that glibc keeps (32, 33).
_ALL_SIGNALS = 0xFFFFFFFE7FFBFEFF


def read_threads(process: Process, *, closely: bool = False, tids: Collection[int] | None = None) -> tuple[Thread, ...]:
    """All threads, or these, lowest tid first. Those that end meanwhile are left out. Raises NoSuchProcessError.

    `closely`: also the CPU time of each, and what it waits for (about twice as expensive).
    """
    if tids is None:
        tids = _tids(process)
    found = (_read(f"/proc/{process.pid}/task/{tid}", tid) for tid in tids)
    threads = tuple(thread for thread in found if thread is not None)
    return tuple(_closely(process.pid, thread) for thread in threads) if closely else threads


def find_threads(process: Process, wanted: Callable[[str], bool]) -> list[int]:
    """The tids of the threads whose names are wanted: a third of the cost of reading them all."""
    found = []
    for tid in _tids(process):
        try:
            with open(f"/proc/{process.pid}/task/{tid}/comm", errors="backslashreplace") as file:
                if wanted(file.read().removesuffix("\n")):
                    found.append(tid)
        except OSError:
            continue  # it has ended
    return found


def _tids(process: Process) -> list[int]:
    with process.reading():
        return sorted(int(name) for name in os.listdir(f"/proc/{process.pid}/task"))


def _closely(pid: int, thread: Thread) -> Thread:
    wait = read_wait(pid, thread.tid) if thread.state in "SD" else None
    on_cpu, ready = _times(f"/proc/{pid}/task/{thread.tid}")
    return msgspec.structs.replace(thread, cpu_seconds=on_cpu, ready_seconds=ready, wait=wait)


def _times(path: str) -> tuple[float | None, float | None]:
    try:
        with open(f"{path}/schedstat", "rb") as file:  # nanoseconds on a CPU, nanoseconds in the queue for one, …
            on_cpu, ready = (int(word) / 1e9 for word in file.read().split()[:2])
    except (OSError, ValueError):
        return None, None
    return on_cpu, ready


def _read(path: str, tid: int) -> Thread | None:
    name, state, switches, deaf = "", "?", None, False
    try:
        with open(f"{path}/status", errors="backslashreplace") as file:
            for line in file:
                key, _, value = line.partition(":")
                if key == "Name":
                    # The kernel escapes newline and backslash here, and nothing else (fs/proc/array.c: proc_task_name).
                    name = value[1:].rstrip("\n").replace("\\n", "\n").replace("\\\\", "\\")
                elif key == "State":
                    state = value.split()[0]
                elif key == "SigBlk":
                    deaf = int(value, 16) & _ALL_SIGNALS == _ALL_SIGNALS
                elif key == "voluntary_ctxt_switches":
                    switches = int(value)
    except OSError:
        return None
    return Thread(tid, name, state, _wait_channel(path), switches, deaf=deaf)


def _wait_channel(path: str) -> str | None:
    # "0": it runs, or the kernel hides the symbol from this user (kptr_restrict, no ptrace permission). Never a guess.
    try:
        with open(f"{path}/wchan") as file:
            channel = file.read().strip()
    except OSError:
        return None
    return channel if channel not in ("", "0") else None
