"""A process under load that forks in every way. Arguments: BROKER LIBRARY KEEP. It forks once for each line of standard
input, which names how and how the child ends ("fork sys.exit"), and answers "PID CODE SECONDS" or what did not hold.

The load: two threads that call without pause, directly and through a relay, each result checked, and with each fork a
call in flight. Children of the
kind "stay" live until KEEP (a file) is gone. "close" closes the client, and says so.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.context import ForkContext
from pathlib import Path
from typing import Any

from figures import ledger_faults

from datacenter import Client, ClientOptions, DatacenterError
from datacenter.errors import ForkedError
from datacenter.sockets.ledger import open_descriptors

warnings.filterwarnings("ignore", ".*fork", DeprecationWarning)  # Python 3.12 warns of any fork beside threads

BROKER, LIBRARY, KEEP = sys.argv[1:]
OPTIONS = ClientOptions(reconnect_min_ms=1, reconnect_max_ms=1, route="direct")
RELAYED = ClientOptions(reconnect_min_ms=1, reconnect_max_ms=1, route="relay")
OURS = ("socket:", "anon_inode:[event")
FORKS: dict[str, Callable[[], int]] = {
    "fork": os.fork,
    "c": ctypes.PyDLL(LIBRARY).fork_and_tell_python,
}
context: ForkContext = multiprocessing.get_context("fork")  # type: ignore[assignment]
baseline: dict[int, str] = {}
client: Client  # goes to the instance itself
relayed: Client  # goes through the broker's relay


class Load:
    """Calls without pause, in threads; `wrong` is what should not have been answered, `ended` how many calls ended."""

    def __init__(self) -> None:
        self.wrong: list[str] = []
        self.ended = 0
        self.stop = threading.Event()
        self.threads = [threading.Thread(target=self.run, args=(n,), daemon=True) for n in range(2)]
        for thread in self.threads:
            thread.start()

    def run(self, first: int) -> None:
        number = first
        caller = (client, relayed)[first % 2]
        while not self.stop.is_set():
            number += 2
            try:
                answer = caller.call("shop.add", number, 1, deadline_s=5)
                if answer != number + 1:
                    self.wrong.append(f"{number} + 1 = {answer}")
            except DatacenterError as error:
                if error.code not in ("lost", "deadline", "broker-unreachable"):
                    self.wrong.append(repr(error))
            self.ended += 1


def left() -> list[str]:
    """What this child has that its parent had not at its start."""
    now = open_descriptors()
    return [
        f"{number} {link}" for number, link in now.items() if link.startswith(OURS) and baseline.get(number) != link
    ]


def in_child(kind: str) -> int:
    """What every child checks, by the way it goes on; returns its exit status."""
    if found := left():
        print(f"FAULT {kind}: the child has {found}", file=sys.stderr)
        return 3
    uses: list[Callable[[], Any]] = [lambda: client.call("shop.pid"), client.statistics, relayed.statistics]
    for use in uses:
        try:
            use()
            print(f"FAULT {kind}: the parent's client was used in a child", file=sys.stderr)
            return 4
        except ForkedError:
            pass
    if "afresh" in kind:
        with Client(BROKER, options=OPTIONS) as own:
            with contextlib.suppress(DatacenterError):  # there may be an outage
                if own.call("shop.add", 1, 1, deadline_s=0.2) != 2:
                    return 5
            if faults := [fault for fault in ledger_faults(os.getpid()) if not known(fault)]:
                print(f"FAULT {kind}: {faults}", file=sys.stderr)
                return 6
        if found := left():
            print(f"FAULT {kind}: after its own client the child has {found}", file=sys.stderr)
            return 7
    if "grandchild" in kind:
        pid = os.fork()
        if pid == 0:
            os._exit(in_child("afresh"))
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if "unclosed" in kind:
        globals()["forgotten"] = Client(BROKER, options=OPTIONS)
    return 0


def known(fault: str) -> bool:
    """Whether it is a descriptor that the process was started with, or one of multiprocessing."""
    return any(fault.startswith(f"{number} ") for number in baseline) or "(pipe:" in fault


def leave(kind: str, status: int) -> None:
    sys.stderr.flush()
    if status:
        os._exit(status)
    if "SIGKILL" in kind:
        os.kill(os.getpid(), signal.SIGKILL)
    if "sys.exit" in kind:
        sys.exit(0)
    if "raise" in kind:
        sys.excepthook = lambda *_: None
        raise RuntimeError("deliberate")
    if "daemon" in kind:
        os.closerange(3, 4096)
    os._exit(0)


def stay(kind: str) -> None:
    """A child that outlives its parent's connections. It ends when KEEP is gone, or its parent."""
    while os.path.exists(KEEP) and os.getppid() != 1:
        time.sleep(0.05)
    os._exit(0)


def work(kind: str) -> int:
    return in_child(kind)


def fork(kind: str) -> tuple[int, int]:
    """Forks as `kind` says: (pid, status of the child); status None of one that stays is 0."""
    how = kind.split()[0]
    if how == "process":
        process = context.Process(target=lambda: sys.exit(in_child(kind)))
        process.start()
        process.join()
        return process.pid or 0, process.exitcode or 0
    if how == "pool":
        with context.Pool(2) as pool:
            return 0, max(pool.map(work, [kind] * 4, 1))
    if how == "executor":
        with ProcessPoolExecutor(2, mp_context=context) as executor:
            return 0, max(executor.map(work, [kind] * 4))
    if how == "c-only":
        ready, told = os.pipe()
        pid = ctypes.CDLL(LIBRARY).fork_and_wait(told)
        os.read(ready, 1)
        os.close(ready)
        os.close(told)
        found = [link for link in links(pid) if link.startswith(OURS) and link not in baseline.values()]
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        return pid, len(found)
    pid = FORKS[how]()
    if pid == 0:
        status = 9
        try:
            status = in_child(kind)
        except BaseException:
            traceback.print_exc()
        if "stay" in kind and status == 0:
            stay(kind)
        leave(kind, status)
    if "stay" in kind:
        return pid, 0
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    expected = -signal.SIGKILL if "SIGKILL" in kind else 1 if "raise" in kind else 0
    return pid, 0 if status == expected else status or 99


def links(pid: int) -> list[str]:
    found = []
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            found.append(os.readlink(f"/proc/{pid}/fd/{name}"))
    return found


def main() -> None:
    global client, relayed
    baseline.update(open_descriptors())
    client = Client(BROKER, options=OPTIONS)
    relayed = Client(BROKER, options=RELAYED)
    client.call("shop.pid", deadline_s=10)
    relayed.call("shop.pid", deadline_s=10)
    load = Load()
    print("ready", flush=True)
    for line in sys.stdin:
        kind = line.strip()
        if kind == "calm":
            load.stop.set()
            for thread in load.threads:
                thread.join()
            print(f"calm {load.ended} {load.wrong}", flush=True)
            continue
        if kind == "load":
            load = Load()
            print("loaded", flush=True)
            continue
        if kind == "close":
            client.close()
            relayed.close()
            print("closed", flush=True)
            continue
        if kind == "end":
            break
        with contextlib.suppress(DatacenterError):
            client.submit("shop.wait", 0.01, deadline_s=1)  # in flight while it forks
        began = time.monotonic()
        pid, status = fork(kind)
        print(f"{pid} {status} {time.monotonic() - began:.3f}", flush=True)
    Path(KEEP).unlink(missing_ok=True)


if __name__ == "__main__":
    main()
