"""fork() at bad moments: beside threads that open and close, in callbacks of our own threads, beside code that closes
every descriptor there is.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

Child = Callable[..., str]

PREPARE = """
    import ctypes, gc, os, signal, socket, sys, threading, time, warnings, zmq
    warnings.filterwarnings("ignore", ".*fork", DeprecationWarning)  # Python 3.12 warns of any fork beside threads
    from datacenter.errors import ForkedError
    from datacenter.sockets import SocketContext
    from datacenter.sockets.ledger import Ledger, open_descriptors
    def pair(context, **more):
        server, client = context.socket(zmq.ROUTER, owner="server", **more), context.socket(zmq.DEALER, owner="client")
        client.connect(server.bind("tcp://127.0.0.1:*"))
        return server, client
    def round_trip(server, client):
        client.raw.send(b"ping")
        assert server.raw.poll(5000)
        server.raw.send_multipart(server.raw.recv_multipart())
        assert client.raw.poll(5000)
        assert client.raw.recv() == b"ping"
    def begin_afresh():
        with SocketContext("child") as own:
            mine, other = pair(own)
            round_trip(mine, other)
        assert own.close().clean
    def end_of(pid, status=0):
        end = time.monotonic() + 30
        while (found := os.waitpid(pid, os.WNOHANG)) == (0, 0):
            if time.monotonic() > end:
                os.kill(pid, 9)
                os.waitpid(pid, 0)
                raise AssertionError("the child did not end")
            time.sleep(0.002)
        assert os.waitstatus_to_exitcode(found[1]) == status, found
"""


def program(text: str) -> str:
    return textwrap.dedent(PREPARE) + textwrap.dedent(text)


@pytest.mark.parametrize("fork", ["os.fork", "ctypes.PyDLL(LIBRARY).fork_and_tell_python"])
def test_beside_threads_that_begin_and_end_everything(child: Child, library: Path, fork: str) -> None:
    """Contexts, sockets, monitors and the hub itself come and go in two threads: whatever the moment, the child has
    exactly what it had before any of it. (Forks of C code are not kept from the moments in which Python has opened
    something that is not in the ledger yet, or looks whether a socket can be had: no port and no connection is among
    it.)
    """
    child(
        program(f"""
    LIBRARY = {str(library)!r}
    baseline = open_descriptors()
    stop = threading.Event()
    def family(number):
        with socket.socket(fileno=os.dup(number)) as copy:
            return copy.family
    def churn():
        while not stop.is_set():
            with SocketContext("churn") as context:
                both = pair(context)
                round_trip(*both)
    threads = [threading.Thread(target=churn, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    for n in range(100):
        pid = {fork}()
        if pid == 0:
            if n % 10 == 0:
                begin_afresh()
            now = open_descriptors()
            wrong = {{k: v for k, v in now.items() if baseline.get(k) != v}}
            if "ctypes" in {fork!r}:
                wrong = {{k: v for k, v in wrong.items() if v.startswith("socket") and family(k) != socket.AF_UNIX}}
            if wrong or baseline.keys() - now.keys():
                sys.stderr.write(f"left: {{wrong}} lost: {{baseline.keys() - now.keys()}}\\n")
                os._exit(1)
            os._exit(0)
        end_of(pid)
    stop.set()
    for thread in threads:
        thread.join()
    """)
    )


def test_from_a_thread_while_the_others_use_their_sockets(child: Child) -> None:
    child(
        program("""
    with SocketContext("parent") as context:
        server, client = pair(context)
        def fork():
            for _ in range(20):
                pid = os.fork()
                if pid == 0:
                    begin_afresh()
                    os._exit(0)
                end_of(pid)
        forking = threading.Thread(target=fork)
        forking.start()
        while forking.is_alive():
            round_trip(server, client)
        forking.join()
    """)
    )


@pytest.mark.parametrize("fork", ["os.fork", "ctypes.PyDLL(LIBRARY).fork_and_tell_python"])
@pytest.mark.parametrize("end", ["return", "sys.exit(0)", "os._exit(0)"])
def test_in_a_callback_of_the_monitor_hub(child: Child, library: Path, fork: str, end: str) -> None:
    """The child is a copy of the hub's thread. It ends with the callback, and never looks at a descriptor again."""
    child(
        program(f"""
    LIBRARY = {str(library)!r}
    pids = []
    def on_event(event):
        if event.name == "HANDSHAKE_SUCCEEDED" and not pids:
            pid = {fork}()
            if pid == 0:
                begin_afresh()
                {end}
            pids.append(pid)
    with SocketContext("parent") as context:
        server, client = pair(context, on_event=on_event)
        round_trip(server, client)
        end = time.monotonic() + 10
        while not pids and time.monotonic() < end:
            time.sleep(0.002)
        end_of(pids[0])
        round_trip(server, client)
        assert context.statistics().hub.callback_errors == 0
    """)
    )


def test_a_hook_that_runs_before_ours_and_takes_the_numbers(child: Child) -> None:
    """A library that was imported earlier closes everything in the child and opens its own: none of it is closed."""
    child(
        textwrap.dedent("""
    import os
    taken = []
    def hook():
        os.closerange(3, 4096)
        taken.extend(os.eventfd(0) for _ in range(30))
    os.register_at_fork(after_in_child=hook)
    """)
        + program("""
    context = SocketContext("parent")
    server, client = pair(context)
    round_trip(server, client)
    pid = os.fork()
    if pid == 0:
        begin_afresh()
        del server, client
        gc.collect()
        assert all(os.readlink(f"/proc/self/fd/{number}") == "anon_inode:[eventfd]" for number in taken)
        for number in taken:
            os.eventfd_write(number, 1)
            assert os.eventfd_read(number) == 1
        sys.exit(0)
    end_of(pid)
    round_trip(server, client)
    assert context.close().clean
    """)
    )


@pytest.mark.parametrize("first", ["close all, then begin afresh", "begin afresh, then fork and close all"])
def test_a_daemon_closes_every_descriptor_there_is(child: Child, first: str) -> None:
    """As PEP 3143's libraries do: fork, setsid, fork, close all. What the child has, and had, is closed under it."""
    child(
        program(f"""
    ready, told = os.pipe()
    context = SocketContext("parent")
    server, client = pair(context)
    round_trip(server, client)
    pid = os.fork()
    if pid == 0:
        os.setsid()
        if "then fork" in {first!r}:
            begin_afresh()
        if os.fork():
            os._exit(0)
        os.dup2(told, 0)
        os.closerange(3, 4096)
        try:
            client.raw
        except ForkedError:
            begin_afresh()
            del client, server
            gc.collect()
            with SocketContext("kept to the end") as own:
                mine, other = pair(own)
                round_trip(mine, other)
                os.write(0, b"well")
        sys.exit(0)
    os.close(told)
    end_of(pid)
    with open(ready, "rb") as heard:
        assert heard.read() == b"well"
    round_trip(server, client)
    assert context.close().clean
    """)
    )


def test_a_number_that_somebody_else_closed_and_took_is_left_alone(child: Child) -> None:
    """Nobody may close another's descriptor, but some do: a file that has its number by now is no business of ours."""
    child(
        program("""
    ledger = Ledger.open()
    number = os.eventfd(0, os.EFD_CLOEXEC)
    ledger.register(number, "eventfd", "test")
    other = os.open("/dev/null", os.O_RDONLY)
    os.dup2(other, number)
    pid = os.fork()
    if pid == 0:
        assert os.readlink(f"/proc/self/fd/{number}") == "/dev/null"
        found = ledger.statistics()
        assert (found.closed_in_child, found.strange_in_child) == (0, 1), found
        os._exit(0)
    end_of(pid)
    ledger.forget(number)
    ledger.close()
    """)
    )
