"""How many connections are in TIME_WAIT, and which of them are of one process's listeners and remotes.

They have left the process that closed them: no descriptor, no inode, no owner. Their addresses are all there is.
"""

from __future__ import annotations

import os
import socket
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from itertools import count, islice

from leakline.facts import Snapshot, TimeWait
from leakline.proc import sock_diag
from leakline.proc.descriptors import kind_of_protocol, protocol_of
from leakline.proc.process import Process
from leakline.proc.sockets import same_namespace

WORTH_A_LOOK = 200  # with fewer in the namespace, whose they are is not asked
_SHOWN = 5  # listeners
_NAMED = 50  # remotes
_LOOKS, _LOOK_EVERY_S = 150, 0.002
_WAIT_S = 60  # TCP_TIMEWAIT_LEN, a constant of the kernel
_FREE_NUMBERS = 8  # the lowest: what is opened gets one of them (POSIX)


def read_time_wait(process: Process, seen: Snapshot) -> TimeWait | None:
    """None where the kernel does not tell."""
    total = _total(process)
    if total is None:
        return None
    if total < WORTH_A_LOOK or not same_namespace(process):
        return TimeWait(total)
    listeners = {
        each.socket.local.port
        for each in seen.descriptors
        if each.kind == "tcp" and each.socket and each.socket.role == "listener" and each.socket.local
    }
    by_listener, by_remote = Counter[int](), Counter[tuple[int, bytes, int]]()
    try:
        for local, remote, host, family in sock_diag.time_waits():
            if local in listeners:
                by_listener[local] += 1
            else:
                by_remote[family, host, remote] += 1
    except OSError:
        return TimeWait(total)
    named = {f"{_name(family, host)}:{port}": count for (family, host, port), count in by_remote.most_common(_NAMED)}
    most = max((named.get(remote, 0) for remote in _remotes(seen)), default=max(named.values(), default=0))
    return TimeWait(
        total,
        {f"port {port}": count for port, count in by_listener.most_common(_SHOWN)},
        named,
        _client_ports(),
        come_and_go=most >= WORTH_A_LOOK and _come_and_go(process, seen, most),
    )


def _remotes(seen: Snapshot) -> Iterator[str]:
    """Of its outgoing connections, as `_name` has them."""
    for each in seen.descriptors:
        if each.kind == "tcp" and each.socket and each.socket.role == "outgoing" and each.socket.remote:
            host, port = each.socket.remote.host, each.socket.remote.port
            yield f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _come_and_go(process: Process, seen: Snapshot, waiting: int) -> bool:
    """Whether the process opens TCP sockets and closes them again, as is seen in a third of a second: at least half as
    often as it takes for so many to be `waiting` to a remote of its own. One that only connects anew does so, too, but
    seldom.
    """
    wanted = min(max(1, round(waiting / _WAIT_S * _LOOKS * _LOOK_EVERY_S / 2)), _LOOKS // 3)
    held = {each.number for each in seen.descriptors}
    free = list(islice((number for number in count() if number not in held), _FREE_NUMBERS))
    before: dict[int, str] = {}
    for _ in range(_LOOKS):
        now: dict[int, str] = {}
        for number in free:
            with suppress(OSError):
                target = os.readlink(f"{process.path}/fd/{number}")
                if target == before.get(number) or kind_of_protocol(protocol_of(process, number)) == "tcp":
                    now[number] = target
        wanted -= bool(before.items() - now.items())
        if wanted <= 0:
            return True
        before = now
        time.sleep(_LOOK_EVERY_S)
    return False


def _total(process: Process) -> int | None:
    try:
        with open(f"{process.path}/net/sockstat") as file:
            for line in file:
                if line.startswith("TCP:"):
                    words = line.split()
                    return int(words[words.index("tw") + 1])
    except (OSError, ValueError):
        return None
    return None


def _client_ports() -> int:
    try:
        with open("/proc/sys/net/ipv4/ip_local_port_range") as file:
            low, high = map(int, file.read().split())
    except (OSError, ValueError):
        return 0
    return high - low + 1


def _name(family: int, packed: bytes) -> str:
    """A packed address as text; an IPv4 one that IPv6 maps, as IPv4."""
    if family == socket.AF_INET:
        return socket.inet_ntoa(packed[:4])
    if packed[:12] == bytes(10) + b"\xff\xff":
        return socket.inet_ntoa(packed[12:])
    return f"[{socket.inet_ntop(socket.AF_INET6, packed)}]"
