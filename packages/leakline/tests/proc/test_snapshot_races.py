"""Looking at a process that changes or ends meanwhile: never a crash, never something that was not there."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from leakline import proc
from leakline.errors import NoSuchProcessError, ZombieError

RESTLESS = """
import os, select, socket, threading
server = socket.create_server(("127.0.0.1", 0))
kept = [socket.socket() for _ in range(50)]
fds["never bound"] = [sock.fileno() for sock in kept]
fds["server"] = server.fileno()
def churn():
    while True:
        client = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
        pipe = os.pipe(); poll = select.epoll(); file = os.open("/dev/null", os.O_RDONLY)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1, 0, 0, 0, 0, 0, 0, 0]))  # leave no TIME_WAIT
        accepted.close(); client.close(); poll.close(); os.close(file); os.close(pipe[0]); os.close(pipe[1])
for _ in range(2):
    threading.Thread(target=churn, daemon=True).start()
"""
ROUNDS = 200


def test_two_hundred_looks_at_a_restless_process(start: Any) -> None:
    target = start(RESTLESS)
    steady = set(target.fds["never bound"])
    changes = 0
    for i in range(ROUNDS):
        snapshot = proc.snapshot(target.pid, flags=i % 2 == 0, threads=False, libraries=False)
        found = {descriptor.number: descriptor for descriptor in snapshot.descriptors}
        changes += found.keys() != steady | {0, 1, 2, target.fds["server"]}
        unbound = {n for n, d in found.items() if d.socket is not None and d.socket.role == "never-bound"}
        assert steady <= unbound
        # Sockets that were closed before their table was read are not mistaken for leaked ones; a client or an accepted
        # socket may be seen between socket() and connect(): at most one in each of the two threads.
        assert len(unbound - steady) <= 2
        server = found[target.fds["server"]].socket
        assert server is not None
        assert server.role == "listener"
        assert proc.count(target.pid) >= len(steady)
    assert changes > 0, "the process never changed while it was looked at: this test has shown nothing"
    assert target.process.poll() is None


def test_a_process_that_ends_meanwhile_is_a_clear_answer(start: Any) -> None:
    outcomes = set()
    for i in range(10):
        target = start("import os\nfor _ in range(1000): os.open('/dev/null', os.O_RDONLY)")
        killer = threading.Timer(0.0004 * i, target.process.kill)
        killer.start()
        try:
            while True:
                outcomes.add(proc.snapshot(target.pid, flags=True).total >= 1000)
        except (NoSuchProcessError, ZombieError) as error:  # a zombie until this test collects it
            outcomes.add(str(target.pid) in error.message)
        killer.join()
    assert outcomes == {True}


def test_a_number_that_was_given_to_another_process_is_noticed(start: Any) -> None:
    from leakline.proc.process import Process

    target = start("")
    process = Process(target.pid)
    process.check_same()
    assert process.started == proc.started(target.pid)
    process.started -= 1  # as if it had been made when an earlier process had the number
    with pytest.raises(NoSuchProcessError, match="ended while it was being read"):
        process.check_same()


def test_looking_leaves_no_descriptor_behind(start: Any) -> None:
    target = start(RESTLESS)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        proc.snapshot(target.pid, flags=True)
        proc.kinds(target.pid)
    target.process.kill()
    target.process.wait()
    for look in (proc.snapshot, proc.kinds, proc.count, proc.threads, proc.limits, proc.command, proc.started):
        with pytest.raises(NoSuchProcessError):
            look(target.pid)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_process_that_is_looked_at_again_and_again_is_told_from_its_successor(start: Any) -> None:
    target = start("")
    lasting = proc.LastingProcess(target.pid, proc.started(target.pid))
    counted = proc.count(target.pid)
    assert lasting.count() == counted
    lasting._inode -= 1  # memory was short, and /proc made another inode
    assert lasting.count() == counted
    assert lasting.process().pid == target.pid
    target.process.kill()
    target.process.wait()
    for look in (lasting.count, lasting.process):
        with pytest.raises(NoSuchProcessError):
            look()


SUCCESSOR = """
import os, subprocess, sys, time
from leakline import proc
from leakline.errors import NoSuchProcessError
def sleeper(more=()):
    return subprocess.Popen(["sleep", "600"], pass_fds=more)
first = sleeper()
lasting = proc.LastingProcess(first.pid, proc.started(first.pid))
end = time.monotonic() + 60
while lasting.count() != 3:  # the loader has a library open while the program starts
    assert time.monotonic() < end
first.kill()
first.wait()
time.sleep(0.05)  # start times are told in hundredths of a second
for _ in range(100):
    open("/proc/sys/kernel/ns_last_pid", "w").write(str(first.pid - 1))
    second = sleeper()
    if second.pid == first.pid:
        break
    second.kill()
    second.wait()
else:
    sys.exit("the number was not given out again")
print(os.path.exists(f"/proc/{first.pid}/fd"))
try:
    lasting.count()
except NoSuchProcessError as error:
    print(error.message.replace(str(first.pid), "N"))
second.kill()
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root chooses the number of the next process")
def test_a_number_that_was_given_out_again_is_another_process(tmp_path: Path) -> None:
    (tmp_path / "successor.py").write_text(SUCCESSOR)
    command = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, tmp_path / "successor.py"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["True", "process N has ended, and its number was given to sleep"]
