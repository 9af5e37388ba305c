"""A process in another network namespace: its own tables are read, without entering it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from leakline import proc
from leakline.facts import Address

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("ip"), reason="needs root and iproute2"),
]


@pytest.fixture
def namespace() -> Iterator[str]:
    name = f"leakline-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
        yield name
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)


IN_NAMESPACE = """
import socket, tempfile, os
server = socket.create_server(("127.0.0.1", 7001)); fds["listener"] = server.fileno()
client = socket.create_connection(("127.0.0.1", 7001)); fds["outgoing"] = client.fileno()
accepted, _ = server.accept(); fds["accepted"] = accepted.fileno()
unbound = socket.socket(); fds["never-bound"] = unbound.fileno()
"""


def test_roles_and_addresses_in_another_namespace(start: Any, namespace: str) -> None:
    target = start(IN_NAMESPACE, prefix=("ip", "netns", "exec", namespace))
    assert os.readlink(f"/proc/{target.pid}/ns/net") != os.readlink("/proc/self/ns/net")
    snapshot = proc.snapshot(target.pid)
    found = {descriptor.number: descriptor.socket for descriptor in snapshot.descriptors}
    sockets = {name: found[number] for name, number in target.fds.items()}
    assert {name: socket.role for name, socket in sockets.items() if socket} == {name: name for name in target.fds}
    assert sockets["accepted"] is not None
    assert sockets["accepted"].local == Address("127.0.0.1", 7001)
    assert snapshot.unreadable == ()
    # The listener at port 7001 over there is no listener here.
    assert os.readlink("/proc/self/ns/net") == os.readlink(f"/proc/{os.getpid()}/ns/net")


def test_sockets_of_a_foreign_namespace_are_said_to_be_unknown(start: Any, namespace: str) -> None:
    target = start(
        f"""
        import ctypes, os, socket
        libc = ctypes.CDLL(None, use_errno=True)
        home, other = os.open("/proc/self/ns/net", os.O_RDONLY), os.open("/run/netns/{namespace}", os.O_RDONLY)
        assert libc.setns(other, 0x40000000) == 0
        stranger = socket.socket(socket.AF_UNIX); fds["stranger"] = stranger.fileno()
        assert libc.setns(home, 0x40000000) == 0
        """
    )
    snapshot = proc.snapshot(target.pid)
    (socket,) = (d.socket for d in snapshot.descriptors if d.number == target.fds["stranger"])
    assert socket is not None
    assert (socket.role, socket.protocol, socket.in_tables) == ("unknown", "unix-stream", False)
    assert len(snapshot.unreadable) == 1
    assert "network namespace" in snapshot.unreadable[0]


def test_names_with_newlines_in_another_namespace(start: Any, namespace: str) -> None:
    target = start(
        """
        import socket
        for index, name in enumerate(["\\0evil\\nname 1 2 3", "\\0\\n\\n", "\\0a\\r0: 1"]):
            server = socket.socket(socket.AF_UNIX); server.bind(name); server.listen()
            fds[str(index)] = server.detach()
        """,
        prefix=("ip", "netns", "exec", namespace),
    )
    found = {descriptor.number: descriptor.socket for descriptor in proc.snapshot(target.pid).descriptors}
    sockets = [found[number] for number in target.fds.values()]
    assert [socket.role for socket in sockets if socket] == ["listener"] * 3
    assert sockets[0] is not None
    assert sockets[0].local == Address("@evil")
