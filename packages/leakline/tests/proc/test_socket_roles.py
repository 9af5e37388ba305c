"""Role, state, addresses and queues of sockets, read over netlink and from /proc/PID/net."""

from __future__ import annotations

import os
from typing import Any

import pytest

from leakline import proc
from leakline.facts import Address, Descriptor, Socket
from leakline.proc import net_files, sock_diag
from leakline.proc.socket_rows import CLOSE, LISTEN, Tables

KERNEL = tuple(int(number) for number in os.uname().release.split(".")[:2])
SOCKETS = """
import os, socket, tempfile, select
keep = []
def put(name, sock):
    keep.append(sock)
    fds[name] = sock.fileno()
    return sock
def wait(sock, event):
    poll = select.poll(); poll.register(sock, event)
    assert poll.poll(10_000)
server = put("listener", socket.create_server(("127.0.0.1", 0)))
fds["port"] = server.getsockname()[1]
put("outgoing", socket.create_connection(server.getsockname()))
accepted = put("accepted", server.accept()[0])
keep[-2].send(b"12345")
wait(accepted, select.POLLIN)
leaving = socket.create_connection(server.getsockname())
left = put("close-wait", server.accept()[0])
leaving.close()
wait(left, select.POLLRDHUP)
put("tcp never bound", socket.socket())
bound = put("tcp bound", socket.socket()); bound.bind(("127.0.0.1", 0))
dual = put("dual listener", socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True))
put("outgoing to dual", socket.create_connection(("127.0.0.1", dual.getsockname()[1])))
put("accepted by dual", dual.accept()[0])
put("outgoing 6", socket.create_connection(("::1", dual.getsockname()[1])))
put("accepted 6", dual.accept()[0])
udp = put("udp bound", socket.socket(socket.AF_INET, socket.SOCK_DGRAM)); udp.bind(("127.0.0.1", 0))
put("udp connected", socket.socket(socket.AF_INET, socket.SOCK_DGRAM)).connect(udp.getsockname())
put("udp never bound", socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
put("udp 6", socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)).bind(("::1", 0))
put("udp to dns", socket.socket(socket.AF_INET, socket.SOCK_DGRAM)).connect(("127.0.0.1", 53))
one, two = socket.socketpair()
put("unix pair", one); put("unix pair 2", two)
one, two = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
put("dgram pair", one); put("dgram pair 2", two)
fds["path"] = os.path.join(tempfile.mkdtemp(), "a b.sock")
unix = put("unix listener", socket.socket(socket.AF_UNIX)); unix.bind(fds["path"]); unix.listen()
put("unix outgoing", socket.socket(socket.AF_UNIX)).connect(fds["path"])
put("unix accepted", unix.accept()[0])
put("unix never bound", socket.socket(socket.AF_UNIX))
fds["abstract name"] = "leakline-test-%d" % os.getpid()
put("abstract", socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)).bind("\\0" + fds["abstract name"])
os.unlink(fds["path"]); os.rmdir(os.path.dirname(fds["path"]))
"""
EXPECTED = {
    "listener": ("tcp", "listener", "LISTEN"),
    "outgoing": ("tcp", "outgoing", "ESTABLISHED"),
    "accepted": ("tcp", "accepted", "ESTABLISHED"),
    "close-wait": ("tcp", "accepted", "CLOSE_WAIT"),
    "tcp never bound": ("tcp", "never-bound", "CLOSE"),
    # Before Linux 6.8 no table lists such a socket.
    "tcp bound": ("tcp", "bound" if KERNEL >= (6, 8) else "never-bound", "CLOSE"),
    "dual listener": ("tcp", "listener", "LISTEN"),
    "outgoing to dual": ("tcp", "outgoing", "ESTABLISHED"),
    "accepted by dual": ("tcp", "accepted", "ESTABLISHED"),
    "outgoing 6": ("tcp", "outgoing", "ESTABLISHED"),
    "accepted 6": ("tcp", "accepted", "ESTABLISHED"),
    "udp bound": ("udp", "bound", "UNCONNECTED"),
    "udp connected": ("udp", "connected", "ESTABLISHED"),
    "udp never bound": ("udp", "never-bound", None),
    "udp 6": ("udp", "bound", "UNCONNECTED"),
    "udp to dns": ("udp", "connected", "ESTABLISHED"),
    "unix pair": ("unix-stream", "pair", "ESTABLISHED"),
    "dgram pair": ("unix-dgram", "pair", "ESTABLISHED"),
    "unix listener": ("unix-stream", "listener", "LISTEN"),
    "unix outgoing": ("unix-stream", "outgoing", "ESTABLISHED"),
    "unix accepted": ("unix-stream", "accepted", "ESTABLISHED"),
    "unix never bound": ("unix-stream", "never-bound", "UNCONNECTED"),
    "abstract": ("unix-seqpacket", "bound", "UNCONNECTED"),
}


def sockets_of(target: Any) -> dict[str, Socket]:
    found = {descriptor.number: descriptor for descriptor in proc.snapshot(target.pid).descriptors}
    names = {name: found[number] for name, number in target.fds.items() if name in EXPECTED}
    assert all(descriptor.socket is not None for descriptor in names.values())
    return {name: _socket(descriptor) for name, descriptor in names.items()}


def _socket(descriptor: Descriptor) -> Socket:
    assert descriptor.socket is not None
    return descriptor.socket


def test_every_role_and_state(start: Any) -> None:
    target = start(SOCKETS)
    sockets = sockets_of(target)
    assert {name: (s.protocol, s.role, s.state) for name, s in sockets.items()} == EXPECTED
    assert proc.snapshot(target.pid).unreadable == ()


def test_addresses_of_both_ends(start: Any) -> None:
    target = start(SOCKETS)
    sockets = sockets_of(target)
    server = Address("127.0.0.1", target.fds["port"])
    assert sockets["listener"].local == sockets["accepted"].local == sockets["outgoing"].remote == server
    assert sockets["accepted"].remote == sockets["outgoing"].local
    assert sockets["listener"].remote is None
    # An IPv4 peer has one name, also when an IPv6 socket took its connection.
    assert sockets["accepted by dual"].remote == sockets["outgoing to dual"].local
    assert sockets["accepted 6"].remote == sockets["outgoing 6"].local
    path = Address(target.fds["path"])
    assert sockets["unix listener"].local == sockets["unix accepted"].local == sockets["unix outgoing"].remote == path
    assert sockets["abstract"].local == Address("@" + target.fds["abstract name"])


def test_queues_services_and_absence(start: Any) -> None:
    sockets = sockets_of(start(SOCKETS))
    assert (sockets["accepted"].receive_queue, sockets["accepted"].send_queue) == (5, 0)
    assert sockets["listener"].receive_queue == 0
    assert sockets["udp to dns"].service == "domain"
    absent = {name for name, socket in sockets.items() if not socket.in_tables}
    assert absent == {
        name for name in ("tcp never bound", "udp never bound", "tcp bound") if EXPECTED[name][1] != "bound"
    }


def test_a_refused_connection_left_open_is_closed_for_the_kernel(start: Any) -> None:
    target = start(
        """
        import socket
        gone = socket.create_server(("127.0.0.1", 0)); address = gone.getsockname(); gone.close()
        sock = socket.socket()
        try: sock.connect(address)
        except ConnectionRefusedError: fds["refused"] = sock.fileno()
        """
    )
    (socket,) = (d.socket for d in proc.snapshot(target.pid).descriptors if d.number == target.fds["refused"])
    assert socket is not None
    assert (socket.protocol, socket.state, socket.role) == ("tcp", "CLOSE", "never-bound")


@pytest.mark.parametrize(("protocol", "version"), [("tcp", 4), ("tcp", 6), ("udp", 4), ("udp", 6)])
def test_text_tables_say_what_netlink_says(start: Any, protocol: str, version: int) -> None:
    target = start(SOCKETS)
    wanted = {d.inode for d in proc.snapshot(target.pid).descriptors if d.inode is not None}
    netlink, text = Tables(wanted), Tables(wanted)
    sock_diag.read_inet(netlink, protocol, version)
    net_files.read_inet(text, f"/proc/{target.pid}/net", protocol, version)

    def comparable(tables: Tables) -> list[tuple[object, ...]]:
        # A listener's second number is its backlog's limit in netlink, and 0 in the text. TCP sockets that are merely
        # bound are in netlink only.
        rows = [row for row in tables.inet[0].rows if protocol != "tcp" or row[0] != CLOSE]
        return sorted((*row[:7], 0 if row[0] == LISTEN else row[7], row[8]) for row in rows)

    assert comparable(netlink) == comparable(text)
    assert comparable(text)
    ours = {row[2] for row in text.inet[0].rows if row[0] == LISTEN}
    assert {port: netlink.listeners[port] for port in ours} == {port: text.listeners[port] for port in ours}


def test_unix_text_table_says_what_netlink_says_without_peers(start: Any) -> None:
    target = start(SOCKETS)
    wanted = {d.inode for d in proc.snapshot(target.pid).descriptors if d.inode is not None}
    netlink, text = Tables(wanted), Tables(wanted)
    sock_diag.read_unix(netlink)
    net_files.read_unix(text, f"/proc/{target.pid}/net")
    assert {inode: row.name for inode, row in netlink.unix.items()} == {i: row.name for i, row in text.unix.items()}
    assert {inode: row.protocol for inode, row in netlink.unix.items()} == {
        inode: row.protocol for inode, row in text.unix.items()
    }
    assert {row.peer for row in text.unix.values()} == {None}
