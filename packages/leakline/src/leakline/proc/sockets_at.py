"""The sockets at a port or a UNIX address, in every network namespace that has a process which may be looked at."""

from __future__ import annotations

import os
import socket as net
from collections import Counter
from collections.abc import Iterable

from leakline.errors import LeaklineError
from leakline.facts import Socket
from leakline.figures import printable
from leakline.proc import net_files, sock_diag
from leakline.proc.asked import PortAsked, UnixAsked
from leakline.proc.process import Process, user_name
from leakline.proc.socket_rows import InetTable, Tables, state_name
from leakline.proc.sockets import named

_ANY = ("0.0.0.0", "::")


class SocketsAt:
    """What was found: sockets by inode, each with the inode of its namespace (None: leakline's own); the user of each;
    and how many connections have no socket any more, by state (TIME_WAIT, FIN_WAIT2).
    """

    def __init__(self) -> None:
        self.sockets: dict[int, tuple[Socket, int | None]] = {}
        self.users: dict[int, str] = {}
        self.orphans: Counter[str] = Counter()


def sockets_at(asked: PortAsked | UnixAsked, pids: Iterable[int]) -> SocketsAt:
    """Look the address up. `pids`: processes whose namespaces are looked into."""
    found = SocketsAt()
    own = _namespace("self")
    _look(found, asked, "/proc/self/net", None)
    seen = {own}
    for pid in pids:
        namespace = _namespace(pid)
        if namespace is None or namespace in seen:
            continue
        seen.add(namespace)
        try:
            with Process(pid).reading():
                _look(found, asked, f"/proc/{pid}/net", namespace)
        except LeaklineError:
            seen.discard(namespace)  # it ended: another process may show the same namespace
    return found


def _namespace(pid: int | str) -> int | None:
    try:
        return os.stat(f"/proc/{pid}/ns/net").st_ino
    except OSError:
        return None


def _look(found: SocketsAt, asked: PortAsked | UnixAsked, folder: str, namespace: int | None) -> None:
    if isinstance(asked, PortAsked):
        tables = _at_port(asked, folder, netlink=namespace is None)
    else:
        tables = _at_name(asked, folder, netlink=namespace is None)
    for inode, socket in named(tables).items():
        if isinstance(asked, PortAsked) and not _at_host(socket, asked.hosts):
            continue
        found.sockets[inode] = (socket, namespace)
        if inode in tables.users:
            found.users[inode] = user_name(tables.users[inode])
    if isinstance(asked, PortAsked) and not asked.hosts:
        for table in tables.inet:
            found.orphans.update(_orphans(table))


def _at_port(asked: PortAsked, folder: str, netlink: bool) -> Tables:
    port = net.htons(asked.port)
    if netlink:
        tables = Tables(set(), port)
        try:
            for protocol in asked.protocols:
                for version in (4, 6):
                    sock_diag.read_inet(tables, protocol, version)
        except OSError:  # no *_diag module, or a sandbox
            pass
        else:
            return tables
    tables = Tables(set(), port)
    for protocol in asked.protocols:
        for version in (4, 6):
            net_files.read_inet(tables, folder, protocol, version)
    return tables


def _at_name(asked: UnixAsked, folder: str, netlink: bool) -> Tables:
    """Twice: what has the name, then the rows of those; of a file also what was bound by another name of it."""
    names = Tables(set())
    _read_unix(names, folder, netlink)
    wanted = {inode for inode, name in names.names.items() if asked.name in (name, printable(name))}
    if asked.identity is not None:
        device, inode = asked.identity
        wanted |= {each for each, file in names.files.items() if file == (device, inode & 0xFFFFFFFF)}
    tables = Tables(wanted)
    _read_unix(tables, folder, netlink)
    return tables


def _read_unix(tables: Tables, folder: str, netlink: bool) -> None:
    if netlink:
        try:
            sock_diag.read_unix(tables)
        except OSError:
            pass
        else:
            return
    net_files.read_unix(tables, folder)


def _at_host(socket: Socket, hosts: tuple[str, ...]) -> bool:
    """A socket at all addresses is at each."""
    local = "" if socket.local is None else socket.local.host
    return not hosts or local in hosts or local in _ANY


def _orphans(table: InetTable) -> Counter[str]:
    """Connections that no descriptor leads to: the kernel ends them by itself."""
    return Counter(state_name(table.protocol, row[0]) for row in table.rows if not row[8])
