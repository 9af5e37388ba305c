"""Reads the kernel's socket tables over netlink (NETLINK_SOCK_DIAG), as `ss` does, of the caller's network namespace.

An own reader of fixed structs, because a general netlink library decodes every attribute of every row into objects:
for 8 534 sockets pyroute2 0.9.7 takes 426 ms and this about 30 ms, where `lsof` takes 420 ms for all of its work.
Layouts: include/uapi/linux/{netlink,sock_diag,inet_diag,unix_diag}.h.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator

from leakline.proc.socket_rows import LISTEN, UNIX_TYPES, Tables, UnixRow, unix_name

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_REQUEST_DUMP = 0x301  # NLM_F_REQUEST | NLM_F_DUMP
_BUFFER = 1 << 16  # the kernel fills at most 32 KiB for one receive
_TIMEOUT_S = 10.0

_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port id
_INET_REQUEST = struct.Struct("=BBBxI48x")  # family, protocol, extensions, states, socket id
_INET_ROW = struct.Struct("=xBxBHH16s16s16xIIxxxxI")  # state, unanswered, ports, hosts, queues, inode
_INET_USER = struct.Struct("=64xI")
_UNIX_REQUEST = struct.Struct("=BxxxIIIxxxxxxxx")  # family, states, inode, what to show
_UNIX_ROW = struct.Struct("=xBBxI")  # type, state, inode
_UNIX_PLAIN = struct.Struct("=xBBxIxxxxxxxxxxHIxxHII")  # the same, then two attributes: peer; both queues
_UNIX_ROW_SIZE = 16
_SHOW = 1 | 2 | 4 | 16  # UDIAG_SHOW_NAME, _VFS, _PEER, _RQLEN
_NAME, _FILE, _PEER, _QUEUES = 0, 1, 2, 4  # UNIX_DIAG_* attributes

# SYN_RECV (3), TIME_WAIT (6) and NEW_SYN_RECV (12) hold no descriptor, and there may be tens of thousands of them.
_STATES = 0xFFFFFFFF & ~(1 << 3 | 1 << 6 | 1 << 12)

_Message = tuple[memoryview, int, int]  # buffer, offset of the payload, end


def read_inet(tables: Tables, protocol: str, version: int) -> None:
    """Add the TCP or UDP sockets of an IP version. Raises OSError if the kernel lacks the table (module not loaded)."""
    number = socket.IPPROTO_TCP if protocol == "tcp" else socket.IPPROTO_UDP
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    rows = tables.add(protocol, version).rows
    wanted, listens, unpack = tables.wanted, LISTEN if protocol == "tcp" else -1, _INET_ROW.unpack_from
    port, states = tables.port, _STATES if tables.port < 0 else 0xFFFFFFFF
    for buffer, offset, _ in _dump(_INET_REQUEST.pack(family, number, 0, states)):
        row = unpack(buffer, offset)
        if row[0] == listens:
            tables.listeners.setdefault(row[2], set()).add((version, row[4]))
        if row[8] in wanted:
            rows.append(row)
        elif row[2] == port:
            rows.append(row)
            (tables.users[row[8]],) = _INET_USER.unpack_from(buffer, offset)


def time_waits() -> Iterator[tuple[int, int, bytes, int]]:
    """Local port, remote port, packed remote host and address family of each connection in TIME_WAIT."""
    for family in (socket.AF_INET, socket.AF_INET6):
        for buffer, offset, _ in _dump(_INET_REQUEST.pack(family, socket.IPPROTO_TCP, 0, 1 << 6)):
            _, _, local, remote, _, host, *_ = _INET_ROW.unpack_from(buffer, offset)
            yield socket.ntohs(local), socket.ntohs(remote), host, family


def read_unix(tables: Tables) -> None:
    """Add the UNIX sockets. Raises OSError if the kernel has no such table."""
    wanted, found, types, plain = tables.wanted, tables.unix, UNIX_TYPES, _UNIX_PLAIN.unpack_from
    for buffer, offset, end in _dump(_UNIX_REQUEST.pack(socket.AF_UNIX, 0xFFFFFFFF, 0, _SHOW)):
        if end - offset >= _UNIX_PLAIN.size:
            # Most have no name, and then always these two attributes in this order: four times as fast.
            kind, state, inode, first, peer, second, received, unsent = plain(buffer, offset)
            if first == _PEER and second == _QUEUES:
                if inode in wanted:
                    found[inode] = UnixRow(types.get(kind, "unix-stream"), state, "", peer, received, unsent)
                continue
        _add_unix(tables, buffer, offset, end)


def _add_unix(tables: Tables, buffer: memoryview, offset: int, end: int) -> None:
    kind, state, inode = _UNIX_ROW.unpack_from(buffer, offset)
    name, peer, queues = "", 0, (0, 0)
    for attribute, value in _attributes(buffer, offset + _UNIX_ROW_SIZE, end):
        if attribute == _NAME:
            name = tables.names[inode] = unix_name(bytes(value))
        elif attribute == _FILE:
            file, device = struct.unpack("=II", value)
            tables.files[inode] = (os.makedev(device >> 20, device & 0xFFFFF), file)
        elif attribute == _PEER:
            (peer,) = struct.unpack("=I", value)
        elif attribute == _QUEUES:
            queues = struct.unpack("=II", value)
    if inode in tables.wanted:
        tables.unix[inode] = UnixRow(UNIX_TYPES.get(kind, "unix-stream"), state, name, peer, *queues)


def _attributes(buffer: memoryview, offset: int, end: int) -> Iterator[tuple[int, memoryview]]:
    while offset + 4 <= end:
        length, kind = struct.unpack_from("=HH", buffer, offset)
        if length < 4:
            return
        yield kind, buffer[offset + 4 : offset + length]
        offset += (length + 3) & ~3


def _dump(request: bytes) -> Iterator[_Message]:
    """Ask for a table and yield its rows; each is valid until the next is asked for."""
    unpack, buffer = _HEADER.unpack_from, memoryview(bytearray(_BUFFER))
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG) as diag:
        diag.settimeout(_TIMEOUT_S)
        diag.send(_HEADER.pack(_HEADER.size + len(request), _SOCK_DIAG_BY_FAMILY, _REQUEST_DUMP, 1, 0) + request)
        while True:
            received = diag.recv_into(buffer)
            offset = 0
            while offset < received:
                length, kind, _, _, _ = unpack(buffer, offset)
                if kind == _SOCK_DIAG_BY_FAMILY:
                    yield buffer, offset + 16, offset + length
                elif kind in (_NLMSG_DONE, _NLMSG_ERROR):
                    (code,) = struct.unpack_from("=i", buffer, offset + 16)
                    if code < 0:
                        raise OSError(-code, os.strerror(-code))
                    return
                offset += (length + 3) & ~3
