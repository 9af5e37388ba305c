"""The firewall of incident M: drops whatever ZooKeeper answers, without a word, as one does that has lost the state of
its connections; then lets it through. By a rule of routing in the network namespace of the program.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from kazoo.client import KazooClient
from kazoo.protocol.states import KazooState

SESSION_S = 3.0
POLL_S = 0.05
END_S = 60.0
_LOCAL_FIRST, _FIREWALL, _LOCAL = "0", "5", "10"  # places of rules: the kernel's own for local addresses is the first
_CLOSE_WAIT = "08"  # in /proc/net/tcp


def join_network_of(pid: str) -> None:
    """Starts this program again, as the same process, in the network namespace of another. Returns inside."""
    theirs = Path(f"/proc/{pid}/ns/net")
    if theirs.readlink() == Path("/proc/self/ns/net").readlink():
        return
    user = [] if os.geteuid() == 0 else [f"--user=/proc/{pid}/ns/user", "--preserve-credentials"]
    os.execvp("nsenter", ["nsenter", *user, f"--net={theirs}", "--", sys.executable, *sys.argv])


def drops(watchers: list[KazooClient], port: str) -> None:
    """Returns when every watcher has noticed: it has closed its connection, and its session is over at the server."""
    _rule("add", "pref", _LOCAL, "lookup", "local")
    _rule("delete", "pref", _LOCAL_FIRST)
    _rule("add", "pref", _FIREWALL, "ipproto", "tcp", "sport", port, "blackhole")
    _until(lambda: all(watcher.state != KazooState.CONNECTED for watcher in watchers))
    time.sleep(1.5 * SESSION_S)  # nobody can ask the server, which is behind the firewall, whether it has ended them


def lets_through(watchers: list[KazooClient], worker: int) -> None:
    """Returns when all are connected again, and the end of each old connection has arrived, where somebody has it."""
    _rule("delete", "pref", _FIREWALL)
    _until(lambda: all(watcher.connected for watcher in watchers))
    _until(lambda: all(state == _CLOSE_WAIT for state in _states(worker)))


def _rule(*words: str) -> None:
    subprocess.run(["ip", "rule", *words], check=True)


def _states(pid: int) -> list[str]:
    """Of each TCP connection of a process, as the kernel writes them."""
    targets = {os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir()}
    rows = [line.split() for line in Path("/proc/self/net/tcp").read_text(encoding="ascii").splitlines()]
    return [row[3] for row in rows if f"socket:[{row[9]}]" in targets]


def _until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + END_S
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {END_S:g} s")
        time.sleep(POLL_S)
