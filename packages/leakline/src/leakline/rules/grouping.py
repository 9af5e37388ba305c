"""Descriptors as a person would name them, and counted by that name: "to 10.0.0.7:5432 (postgresql), CLOSE_WAIT"."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from leakline.facts import Address, Descriptor, Snapshot, Socket

_NUMBERS = re.compile(r"\d+")
SHOWN = 5


def new_since(begin: Snapshot, end: Snapshot) -> list[Descriptor]:
    """Descriptors of `end` that `begin` does not have. The number alone is no identity: it is given out again after a
    close.
    """
    known = {(descriptor.number, descriptor.target) for descriptor in begin.descriptors}
    return [descriptor for descriptor in end.descriptors if (descriptor.number, descriptor.target) not in known]


def lasting(begin: Snapshot, end: Snapshot) -> list[Descriptor]:
    """Descriptors that are in both, as `end` sees them."""
    known = {(descriptor.number, descriptor.target) for descriptor in begin.descriptors}
    return [descriptor for descriptor in end.descriptors if (descriptor.number, descriptor.target) in known]


def peer_of(descriptor: Descriptor) -> str:
    """What it leads to: the peer of a socket, the path of a file, else what /proc calls it, without its number."""
    socket = descriptor.socket
    if socket is not None:
        return _peer_of_socket(socket)
    return descriptor.target if descriptor.target.startswith("/") else _NUMBERS.sub("…", descriptor.target)


def top(names: Iterable[str], shown: int = SHOWN) -> dict[str, int]:
    """Names with their counts, most first; what is beyond `shown` is summed up under "others"."""
    counted = Counter(names)
    most = dict(counted.most_common(shown))
    rest = counted.total() - sum(most.values())
    return {**most, "others": rest} if rest else most


def _peer_of_socket(socket: Socket) -> str:
    state = f", {socket.state}" if socket.state else ""
    service = f" ({socket.service})" if socket.service else ""
    if socket.role == "never-bound":
        return f"{socket.protocol}, neither address nor peer"
    if socket.role == "listener" and socket.local:
        return f"listening on {address(socket.local)}{service}"
    if socket.role == "accepted" and socket.local:
        return f"accepted on {address(socket.local)}{service}{state}"
    if socket.remote:
        return f"to {address(socket.remote)}{service}{state}"
    if socket.local:
        return f"at {address(socket.local)}{service}{state}"
    return f"{socket.protocol} {socket.role}{state}"


def address(of: Address) -> str:
    """`127.0.0.1:80`, `[::1]:80`, or the path of a UNIX socket."""
    if not of.port:
        return of.host
    return f"[{of.host}]:{of.port}" if ":" in of.host else f"{of.host}:{of.port}"
