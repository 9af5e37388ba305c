"""fork(): the child's copies refuse, and the parent's connections live on. Also when C code forks, which Python is not
told of.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

Child = Callable[..., str]

PREPARE = """
    import gc, os, sys, warnings, zmq
    warnings.filterwarnings("ignore", ".*fork", DeprecationWarning)  # Python 3.12 warns of any fork beside threads
    from datacenter.errors import ForkedError
    from datacenter.sockets import SocketContext
    context = SocketContext("parent")
    server = context.socket(zmq.ROUTER, owner="server")
    client = context.socket(zmq.DEALER, owner="client")
    client.connect(server.bind("tcp://127.0.0.1:*"))
    def round_trip(server, client):
        client.raw.send(b"ping")
        assert server.raw.poll(5000)
        server.raw.send_multipart(server.raw.recv_multipart())
        assert client.raw.poll(5000)
        assert client.raw.recv() == b"ping"
    def end_of(pid):
        status = os.waitpid(pid, 0)[1]
        assert status == 0, status
    def begin_afresh():
        with SocketContext("child") as own:
            mine, other = own.socket(zmq.ROUTER, owner="s"), own.socket(zmq.DEALER, owner="c")
            other.connect(mine.bind("tcp://127.0.0.1:*"))
            round_trip(mine, other)
            assert own.statistics().hub.monitors == 2
        assert own.close().clean
    def left_of(pid):
        links = [os.readlink(f"/proc/{pid}/fd/{n}") for n in os.listdir(f"/proc/{pid}/fd") if int(n) > 2 and
                 os.path.islink(f"/proc/{pid}/fd/{n}")]
        return [link for link in links if link.startswith(("socket", "anon_inode"))]
    round_trip(server, client)
"""


def test_every_use_in_the_child_says_so(child: Child) -> None:
    child(
        PREPARE
        + """
    pid = os.fork()
    if pid == 0:
        uses = [
            lambda: client.raw, lambda: client.closed, lambda: client.endpoint, lambda: client.statistics(),
            lambda: client.bind("tcp://127.0.0.1:*"), lambda: client.unbind(), lambda: client.connect("ipc://a"),
            lambda: client.disconnect(), lambda: client.__enter__(), lambda: context.__enter__(),
            lambda: context.statistics(), lambda: context.socket(zmq.DEALER, owner="late"),
        ]
        refused = 0
        for use in uses:
            try:
                use()
            except ForkedError:
                refused += 1
        assert refused == len(uses), refused
        assert "forked" in repr(client) and "forked" in repr(context)
        client.close()
        assert context.close().clean
        del client, server, context, uses, use
        gc.collect()
        sys.exit(0)
    end_of(pid)
    round_trip(server, client)
    assert context.close().clean
    """
    )


def test_the_child_starts_afresh_many_times(child: Child) -> None:
    child(
        PREPARE
        + """
    for n in range(20):
        pid = os.fork()
        if pid == 0:
            begin_afresh()
            sys.exit(0)
        end_of(pid)
        round_trip(server, client)
    assert context.statistics().hub.monitors == 2
    assert context.close().clean
    """
    )


def test_the_child_lets_go_of_the_parents_port_and_connections(child: Child) -> None:
    """Incident I: the parent closes while its child lives on; the port is free and the remote sees the end."""
    child(
        PREPARE
        + """
    ready, told = os.pipe()
    stay, leave = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(leave)
        os.write(told, repr(left_of("self")).encode())
        gc.collect()
        os.read(stay, 1)
        sys.exit(0)
    os.close(told); os.close(stay)
    assert os.read(ready, 10000) == b"[]"
    address = server.endpoint
    assert context.close().clean
    with SocketContext("heir") as heir:
        new_server = heir.socket(zmq.ROUTER, owner="heir")
        new_server.bind(address)
    os.close(leave)
    end_of(pid)
    """
    )


def test_the_error_says_who_made_it_and_what_to_do(child: Child) -> None:
    said = child(
        PREPARE
        + """
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            client.raw
        except ForkedError as error:
            print(str(error).replace(str(parent), "P").replace(str(os.getpid()), "C"))
        sys.exit(0)
    end_of(pid)
    assert context.close().clean
    """
    )
    assert said == (
        "DEALER socket 'client' was made by process P and is dead in its child C.\n"
        "  Make a new one here, in the child (and fork before the first one where you can): docs/fork.md.\n"
    )


def test_a_child_of_c_code_holds_nothing_though_no_python_runs_in_it(child: Child, library: Path) -> None:
    child(
        PREPARE
        + f"""
    import ctypes
    ready, told = os.pipe()
    pid = ctypes.CDLL({str(library)!r}).fork_and_wait(told)
    os.read(ready, 1)
    assert left_of(pid) == [], left_of(pid)
    address = server.endpoint
    assert context.close().clean
    with SocketContext("heir") as heir:
        new_server = heir.socket(zmq.ROUTER, owner="heir")
        new_server.bind(address)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    """
    )


def test_a_child_of_c_code_holds_no_socket_that_was_open_for_a_moment(child: Child, library: Path) -> None:
    """After an accept the hub asks the kernel whether it still gives sockets, by opening one."""
    child(
        PREPARE
        + f"""
    import ctypes, threading
    from datacenter.sockets import admission
    fork_and_wait = ctypes.CDLL({str(library)!r}).fork_and_wait
    over = threading.Event()
    def accept_without_end():
        while not over.is_set():
            admission.of_process().check(accepted=True)
    thread = threading.Thread(target=accept_without_end)
    thread.start()
    ready, told = os.pipe()
    left = []
    for _ in range(100):
        pid = fork_and_wait(told)
        os.read(ready, 1)
        left += left_of(pid)
        os.kill(pid, 9)
        os.waitpid(pid, 0)
    over.set()
    thread.join()
    assert left == [], left
    assert context.close().clean
    """
    )


@pytest.mark.parametrize("end", ["sys.exit(0)", "os._exit(0)"])
def test_objects_notice_a_fork_that_python_was_not_told_of(child: Child, end: str) -> None:
    child(
        PREPARE
        + f"""
    import ctypes
    fork = ctypes.PyDLL(None).fork  # while no thread waits for the GIL: else CPython itself hangs in the child
    for first in (lambda: client.raw, lambda: context.socket(zmq.DEALER, owner="late"), None):
        pid = fork()
        if pid == 0:
            assert left_of("self") == []
            if first is not None:
                try:
                    first()
                    os._exit(9)
                except ForkedError:
                    pass
            client.close()
            assert context.close().clean
            begin_afresh()
            begin_afresh()
            {end}
        end_of(pid)
        round_trip(server, client)
    assert context.close().clean
    """
    )


def test_a_child_of_clone_gives_back_ports_and_connections_at_the_first_use(child: Child, library: Path) -> None:
    """No handler runs there: only the kernel knows, and it clears the epoch's page."""
    child(
        PREPARE
        + f"""
    import ctypes
    pid = ctypes.PyDLL({str(library)!r}).clone_and_return()
    if pid == 0:
        assert any(link.startswith("socket") for link in left_of("self"))
        try:
            client.raw
            os._exit(9)
        except ForkedError:
            pass
        begin_afresh()
        assert not any(link.startswith("socket") for link in left_of("self"))
        os._exit(0)
    end_of(pid)
    round_trip(server, client)
    assert context.close().clean
    """
    )


def test_children_of_children(child: Child) -> None:
    child(
        PREPARE
        + """
    def generation(n):
        pid = os.fork()
        if pid:
            end_of(pid)
            return
        assert left_of("self") == [], left_of("self")
        with SocketContext(f"generation {n}") as own:
            mine, other = own.socket(zmq.ROUTER, owner="s"), own.socket(zmq.DEALER, owner="c")
            other.connect(mine.bind("tcp://127.0.0.1:*"))
            round_trip(mine, other)
            if n < 12:  # more generations than a process may have tables
                generation(n + 1)
            round_trip(mine, other)
        assert own.close().clean
        os._exit(0)
    generation(1)
    round_trip(server, client)
    assert context.close().clean
    """
    )


def test_nothing_passes_an_exec(child: Child) -> None:
    child(
        PREPARE
        + """
    import subprocess
    look = ["/bin/ls", "-l", "/proc/self/fd/"]
    ways = [
        subprocess.run(look, close_fds=False, capture_output=True, text=True).stdout,
        subprocess.run(look, close_fds=False, capture_output=True, text=True, start_new_session=True).stdout,
        subprocess.run(look, close_fds=False, capture_output=True, text=True, preexec_fn=lambda: None).stdout,
    ]
    for spawn in ("posix_spawn", "exec"):
        reading, writing = os.pipe()
        if spawn == "posix_spawn":
            pid = os.posix_spawn(look[0], look, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, writing, 1)])
        else:
            pid = os.fork()
            if pid == 0:
                os.dup2(writing, 1)
                os.execv(look[0], look)
        os.close(writing)
        with open(reading) as output:
            ways.append(output.read())
        end_of(pid)
    for seen in ways:
        assert "->" in seen and "socket" not in seen and "anon_inode" not in seen, seen
    round_trip(server, client)
    assert context.close().clean
    """
    )
