"""Which socket is what: reads the tables of the right network namespace, then tells each socket's role.

Facts this rests on:
- A TCP or UDP socket that was never bound nor connected is in no table, and neither is a TCP one whose connection ended
  by a reset or a refusal: both are closed for the kernel, and only the descriptor is left. TCP sockets that are bound
  and neither listen nor connect are shown by netlink since Linux 6.8. UNIX sockets are listed from birth.
- Accepting leaves no mark in the kernel; but an accepted socket keeps the local address of its listener, and an
  outgoing one gets a port on which nobody listens. Once the listener is closed, the two look the same: "outgoing".
- /proc/PID/net shows the process's namespace; sockets that it made in another one (setns), or was passed, are absent.
"""

from __future__ import annotations

import os
import socket as net

from leakline.facts import Address, Role, Socket
from leakline.proc import net_files, sock_diag
from leakline.proc.process import Process
from leakline.proc.services import service_names
from leakline.proc.socket_rows import CLOSE, ESTABLISHED, LISTEN, InetTable, Tables, UnixRow, state_name

_INET = (("tcp", 4), ("tcp", 6), ("udp", 4), ("udp", 6))
_RARE = (("raw", 4), ("raw", 6), ("ping", 4), ("ping", 6), ("udplite", 4), ("udplite", 6))
_MAPPED = bytes(10) + b"\xff\xff"  # ::ffff:a.b.c.d
_ANY = bytes(16)
# Families whose sockets may be absent from every table only because they have no address yet.
_ABSENT_MEANS_UNBOUND = frozenset({"tcp", "mptcp", "udp", "udplite", "netlink", "ping"})


def read_sockets(process: Process, inodes: set[int]) -> tuple[dict[int, Socket], set[int]]:
    """What the tables say of these sockets, by inode, and which of the others are bound (netlink and packet sockets).

    Raises LeaklineError if neither netlink nor /proc/PID/net can be read.
    """
    tables = Tables(inodes)
    if not inodes:
        return {}, set()
    directory = f"{process.path}/net"
    if not (same_namespace(process) and _by_netlink(tables)):
        tables = Tables(inodes)
        with process.reading():
            for protocol, version in _INET:
                net_files.read_inet(tables, directory, protocol, version)
            net_files.read_unix(tables, directory)
    if not tables.complete():
        with process.reading():
            for protocol, version in _RARE:
                net_files.read_inet(tables, directory, protocol, version)
            net_files.read_bound(tables, directory)
    return named(tables), tables.bound


def named(tables: Tables) -> dict[int, Socket]:
    """The sockets of the tables by inode, with their roles; what has no inode (TIME_WAIT) is left out."""
    sockets: dict[int, Socket] = {}
    for table in tables.inet:
        _add_inet(sockets, table, tables.listeners)
    _add_unix(sockets, tables)
    sockets.pop(0, None)
    return sockets


def absent_socket(protocol: str | None, bound: bool) -> Socket:
    """A socket that is in none of the tables of addresses, by the name of its protocol."""
    name = protocol or "socket"
    if bound:
        return Socket(name, "bound")
    role: Role = "never-bound" if name in _ABSENT_MEANS_UNBOUND else "unknown"
    return Socket(name, role, "CLOSE" if name in ("tcp", "mptcp") else None, in_tables=False)


def _by_netlink(tables: Tables) -> bool:
    try:
        for protocol, version in _INET:
            sock_diag.read_inet(tables, protocol, version)
        sock_diag.read_unix(tables)
    except OSError:  # no *_diag module, or a sandbox without netlink: the text tables say nearly the same
        return False
    return True


def same_namespace(process: Process) -> bool:
    """Whether the process is in the network namespace of this one, so that netlink tells about its sockets."""
    try:
        return os.stat(f"{process.path}/ns/net").st_ino == os.stat("/proc/self/ns/net").st_ino
    except OSError:
        return False


def _add_inet(sockets: dict[int, Socket], table: InetTable, listeners: dict[int, set[tuple[int, bytes]]]) -> None:
    protocol, version, ntohs = table.protocol, table.version, net.ntohs
    hosts, services = _Hosts(version), service_names(protocol)
    states = {row[0]: state_name(protocol, row[0]) for row in table.rows}
    for state, unanswered, local_port, remote_port, local_host, remote_host, received, unsent, inode in table.rows:
        role: Role
        if protocol != "tcp":
            role = "connected" if state == ESTABLISHED else "bound"
        elif state == LISTEN:
            role = "listener"
        elif state == CLOSE:
            role = "bound"
        elif local_port in listeners and _accepts(listeners[local_port], version, local_host):
            role = "accepted"
        else:
            role = "outgoing"
        local, remote = ntohs(local_port), ntohs(remote_port)
        sockets[inode] = Socket(
            protocol,
            role,
            states[state],
            Address(hosts[local_host], local),
            Address(hosts[remote_host], remote) if remote else None,
            services.get(remote if role in ("outgoing", "connected") else local),
            received,
            unsent,
            True,
            unanswered,
        )


def _accepts(listeners: set[tuple[int, bytes]], version: int, host: bytes) -> bool:
    """Whether one of the listeners on a port takes connections to this host."""
    if (version, host) in listeners or (version, _ANY) in listeners:
        return True
    if version == 6 and host.startswith(_MAPPED):
        # An IPv4 connection taken by an IPv6 socket; it may have been passed on by one that listens on IPv4.
        return (4, host[12:].ljust(16, b"\0")) in listeners or (4, _ANY) in listeners
    return False


class _Hosts(dict[bytes, str]):
    """Packed hosts as text, each formatted once."""

    def __init__(self, version: int) -> None:
        self._version = version

    def __missing__(self, packed: bytes) -> str:
        if self._version == 4:
            text = net.inet_ntoa(packed[:4])
        elif packed.startswith(_MAPPED):
            text = net.inet_ntoa(packed[12:])  # as its IPv4 peers see it, so that one peer has one name
        else:
            text = net.inet_ntop(net.AF_INET6, packed)
        self[packed] = text
        return text


def _add_unix(sockets: dict[int, Socket], tables: Tables) -> None:
    listening = {row.name for row in tables.unix.values() if row.state == LISTEN}
    for inode, row in tables.unix.items():
        far = tables.names.get(row.peer, "") if row.peer else ""
        sockets[inode] = Socket(
            row.protocol,
            _unix_role(row, far, listening),
            state_name(row.protocol, row.state),
            Address(row.name) if row.name else None,
            Address(far) if far else None,
            None,
            row.receive_queue,
            row.send_queue,
        )


def _unix_role(row: UnixRow, far: str, listening: set[str]) -> Role:
    if row.state == LISTEN:
        return "listener"
    if row.state == CLOSE and not row.peer:
        return "bound" if row.name else "never-bound"
    if row.protocol == "unix-dgram":
        return "pair" if row.peer and not row.name and not far else "connected"
    if row.name and (not far or row.name in listening):
        return "accepted"  # it has the name of its listener; a client has one only if it was bound on purpose
    if far:
        return "outgoing"
    return "pair" if row.peer else "connected"
