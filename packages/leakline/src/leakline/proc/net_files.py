"""Reads the socket tables in /proc/PID/net: those of the network namespace that the process is in, without entering it.

Slower than netlink, and UNIX sockets lack their far end; but every user may read them, of any namespace.
"""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Iterator

from leakline.proc.socket_rows import LISTEN, UNIX_TYPES, Tables, UnixRow

_ACCEPTS = 0x10000  # __SO_ACCEPTCON in the flags of /proc/net/unix: it listens
# An abstract name may hold newlines, whatever follows them: only a line that begins like this is a row.
_UNIX_ROW = re.compile(r"[0-9A-Fa-f]+: [0-9A-F]{8} [0-9A-F]{8} [0-9A-F]{8} [0-9A-F]{4} [0-9A-F]{2} +\d+(?: |$)")
_UNIX_STATES = {1: 7, 2: 2, 3: 1, 4: 8}  # SS_UNCONNECTED, _CONNECTING, _CONNECTED, _DISCONNECTING as TCP's numbers


def read_inet(tables: Tables, net: str, protocol: str, version: int) -> None:
    """Add the sockets of `net`/tcp, udp6, raw, icmp6, … A table that the kernel does not have is empty."""
    name = "icmp" if protocol == "ping" else protocol
    rows = tables.add(protocol, version).rows
    port = f":{socket.ntohs(tables.port):04X}" if tables.port >= 0 else "no port"
    for line in _lines(f"{net}/{name if version == 4 else f'{name}6'}"):
        fields = line.split()
        state, inode = int(fields[3], 16), int(fields[9])
        listens = state == LISTEN and protocol == "tcp"
        here = fields[1].endswith(port)
        if not listens and not here and inode not in tables.wanted:
            continue
        (local, local_port), (remote, remote_port) = _endpoint(fields[1]), _endpoint(fields[2])
        if listens:
            tables.listeners.setdefault(local_port, set()).add((version, local))
        if here:
            tables.users[inode] = int(fields[7])
        if here or inode in tables.wanted:
            unsent, received = (int(queue, 16) for queue in fields[4].split(":"))
            unanswered = max(int(fields[6], 16), int(fields[8])) if protocol == "tcp" else 0
            rows.append((state, unanswered, local_port, remote_port, local, remote, received, unsent, inode))


def read_unix(tables: Tables, net: str) -> None:
    """Add the UNIX sockets. Which socket is connected to which is not in this table."""
    for line in _lines(f"{net}/unix"):
        if not _UNIX_ROW.match(line):
            continue
        fields = line.split(None, 7)
        inode, name = int(fields[6]), fields[7] if len(fields) > 7 else ""
        if name:
            tables.names[inode] = name
        if inode in tables.wanted:
            state = LISTEN if int(fields[3], 16) & _ACCEPTS else _UNIX_STATES.get(int(fields[5], 16), 7)
            protocol = UNIX_TYPES.get(int(fields[4], 16), "unix-stream")
            tables.unix[inode] = UnixRow(protocol, state, name, None, None, None)


def read_bound(tables: Tables, net: str) -> None:
    """Note which netlink and packet sockets are in their tables."""
    for file in ("netlink", "packet"):
        for line in _lines(f"{net}/{file}"):
            inode = int(line.split()[-1])
            if inode in tables.wanted:
                tables.bound.add(inode)


def _lines(path: str) -> Iterator[str]:
    try:
        with open(path, errors="backslashreplace", newline="\n") as file:  # "\r" may be in a name
            next(file, None)
            for line in file:
                yield line.rstrip("\n")
    except FileNotFoundError:
        return


def _endpoint(text: str) -> tuple[bytes, int]:
    """ "0100007F:1F90" -> (host, port) as in a row. The kernel prints each word of a host as a native integer."""
    host, _, port = text.partition(":")
    words = (int(host[i : i + 8], 16) for i in range(0, len(host), 8))
    return struct.pack(f"={len(host) // 8}I", *words).ljust(16, b"\0"), socket.htons(int(port, 16))
