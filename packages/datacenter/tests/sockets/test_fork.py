"""fork(): the child's copies refuse, and the parent's connections live on."""

from __future__ import annotations

from collections.abc import Callable

Child = Callable[..., str]

PREPARE = """
    import gc, os, sys, zmq
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
            with SocketContext("child") as own:
                mine, other = own.socket(zmq.ROUTER, owner="s"), own.socket(zmq.DEALER, owner="c")
                other.connect(mine.bind("tcp://127.0.0.1:*"))
                round_trip(mine, other)
                assert own.statistics().hub.monitors == 2
            assert own.close().clean
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
        kinds = [os.readlink(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd") if int(n) > 2 and
                 os.path.islink(f"/proc/self/fd/{n}")]
        left = [kind for kind in kinds if kind.startswith(("socket", "anon_inode"))]
        os.write(told, repr(left).encode())
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
