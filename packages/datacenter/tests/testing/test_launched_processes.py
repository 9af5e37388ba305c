"""The launcher: readiness, what a process said, and that nothing outlives its launcher."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path

import pytest

from datacenter import Client
from datacenter.testing import Launcher, NotReadyError, free_port

SERVICE = """
from datacenter import Service

greeter = Service("greeter")

@greeter.method
def hello(name: str) -> str:
    return f"Hello, {name}!"
"""

PARENT = """
import sys, time
from datacenter.testing import Process
child = Process([sys.executable, "-c", "print('up', flush=True); input()"])
child.wait_line("up")
print(child.pid, flush=True)
time.sleep(60)
"""


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_broker_and_a_service_are_ready_when_they_are_returned_and_gone_afterwards(tmp_path: Path) -> None:
    (tmp_path / "hello.py").write_text(SERVICE)
    with Launcher(cwd=tmp_path) as launch:
        broker = launch.broker()
        service = launch.service("hello:greeter", broker)
        with Client(broker.address) as client:
            assert client.call("greeter.hello", "Ann") == "Hello, Ann!"
            service.kill()
            assert service.wait() == -signal.SIGKILL
            again = launch.service("hello:greeter", broker, listen=service.endpoint)
            assert again.endpoint == service.endpoint
            assert client.call("greeter.hello", "Ann") == "Hello, Ann!"
        pids = [process.pid for process in (broker, service, again)]
    assert all(gone(pid) for pid in pids)


def test_a_process_that_does_not_become_ready_is_told_with_what_it_said(tmp_path: Path) -> None:
    with Launcher(cwd=tmp_path) as launch:
        with pytest.raises(NotReadyError, match="there is no module 'nothing'"):
            launch.service("nothing:x", "tcp://127.0.0.1:1")
        slow = launch.python("-c", "input()")
        with pytest.raises(NotReadyError, match=r"did not print 'word' within 0\.1 s"):
            slow.wait_line("word", 0.1)
        slow.tell("")
        assert slow.wait() == 0


def test_output_errors_and_status_are_those_of_the_program(tmp_path: Path) -> None:
    with Launcher(cwd=tmp_path, environment={"WORD": "given"}) as launch:
        program = "import os, sys; print(os.environ['WORD'], os.getcwd()); print('oh', file=sys.stderr); sys.exit(3)"
        process = launch.python("-c", program)
        assert process.wait() == 3
        _, found = process.wait_line("^given (.*)$")
        assert Path(found[1]) == tmp_path
        assert process.errors == "oh\n"
        assert not process.running
        assert process.end() == 3


def test_what_was_launched_dies_with_its_launcher_also_when_that_is_killed() -> None:
    with Launcher() as launch:
        parent = launch.python("-c", PARENT)
        _, found = parent.wait_line(r"^(\d+)$")
        child = int(found[1])
        assert not gone(child)
        parent.kill()
        end = time.monotonic() + 10
        while not gone(child):
            assert time.monotonic() < end, f"{child} outlived the process that launched it"
            time.sleep(0.01)


def test_a_free_port_is_below_the_ephemeral_range_and_can_be_bound() -> None:
    port = free_port()
    first_ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert 10_000 <= port < max(first_ephemeral, 11_000)
    with socket.create_server(("127.0.0.1", port)):
        pass
