"""What one line of a kernel socket table says, whichever way it was read (netlink or /proc/PID/net): plain tuples.

Tuples, packed addresses and a filter by inode, because a snapshot has to get through tens of thousands of rows.
"""

from __future__ import annotations

from typing import NamedTuple

ESTABLISHED, CLOSE, LISTEN = 1, 7, 10
_STATES = (
    *("", "ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT1", "FIN_WAIT2", "TIME_WAIT", "CLOSE", "CLOSE_WAIT"),
    *("LAST_ACK", "LISTEN", "CLOSING", "NEW_SYN_RECV"),
)  # include/net/tcp_states.h; every protocol family uses these numbers
UNIX_TYPES = {1: "unix-stream", 2: "unix-dgram", 5: "unix-seqpacket"}

# A TCP, UDP, raw or ping socket:
# state, unanswered, local port, remote port, local host, remote host, receive queue, send queue, inode.
# `unanswered`: retransmissions or probes since the peer last answered (idiag_retrans of whichever timer runs).
# Ports are in network byte order. Hosts have 16 bytes, of which IPv4 uses the first 4. Queues are in bytes, those of a
# listener in connections.
InetRow = tuple[int, int, int, int, bytes, bytes, int, int, int]


class UnixRow(NamedTuple):
    """A UNIX socket. `peer` is the inode of the other end: 0 if there is none, None if the table does not tell."""

    protocol: str
    state: int
    name: str
    peer: int | None
    receive_queue: int | None
    send_queue: int | None


class InetTable:
    """The rows of one protocol and IP version; `version` is 4 or 6."""

    __slots__ = ("protocol", "rows", "version")

    def __init__(self, protocol: str, version: int) -> None:
        self.protocol = protocol
        self.version = version
        self.rows: list[InetRow] = []


class Tables:
    """The rows of the sockets that were asked for (by inode; with `port`, in network byte order, also all at that one),
    and what their roles depend on.

    `listeners`: (IP version, host) by port, of every TCP listener in the namespace. `names`: UNIX addresses by inode,
    of all sockets, as the far end may be in another process; `files`: (device, inode's lower half) of those that are
    files, where netlink told. `bound`: inodes of netlink and packet sockets with one. `users`: of those at the port.
    """

    __slots__ = ("bound", "files", "inet", "listeners", "names", "port", "unix", "users", "wanted")

    def __init__(self, wanted: set[int], port: int = -1) -> None:
        self.wanted = wanted
        self.port = port
        self.inet: list[InetTable] = []
        self.unix: dict[int, UnixRow] = {}
        self.listeners: dict[int, set[tuple[int, bytes]]] = {}
        self.names: dict[int, str] = {}
        self.files: dict[int, tuple[int, int]] = {}
        self.users: dict[int, int] = {}
        self.bound: set[int] = set()

    def add(self, protocol: str, version: int) -> InetTable:
        """A new, empty table."""
        table = InetTable(protocol, version)
        self.inet.append(table)
        return table

    def complete(self) -> bool:
        """Whether every socket that was asked for has been found."""
        return sum(len(table.rows) for table in self.inet) + len(self.unix) >= len(self.wanted)


def state_name(protocol: str, state: int) -> str:
    """Name of a state number. 7 means closed for TCP, but merely not connected for all others."""
    if state == CLOSE and protocol != "tcp":
        return "UNCONNECTED"
    return _STATES[state] if state < len(_STATES) else str(state)


def unix_name(name: bytes) -> str:
    """A UNIX address as text; "@" begins an abstract one, whose first byte is NUL."""
    if name[:1] == b"\0":
        name = b"@" + name[1:]
    return name.rstrip(b"\0").replace(b"\0", b"@").decode(errors="backslashreplace")
