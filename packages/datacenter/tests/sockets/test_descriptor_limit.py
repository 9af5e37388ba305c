"""At the descriptor limit: a typed error at every step, never an abort, never a leak. Each case has its own process."""

from __future__ import annotations

from collections.abc import Callable

Child = Callable[..., str]

PREPARE = """
    import logging, os, resource, time, zmq
    from datacenter.errors import DescriptorLimitError
    from datacenter.sockets import SocketContext, admission, descriptor_limit
    from datacenter.sockets.ledger import Ledger, open_descriptors
    ledger = Ledger.open()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    baseline = open_descriptors()
    HUB = descriptor_limit.HUB_COST
    CONTEXT = descriptor_limit.CONTEXT_COST - 1  # without the socket that starts it
    SOCKET = descriptor_limit.SOCKET_COST + descriptor_limit.MONITOR_COST

    def open_for_us():
        # Without what is held back from peers; read in a moment in which the hub does not change that.
        while True:
            before = admission.of_process().statistics()
            count = descriptor_limit.open_count()
            after = admission.of_process().statistics()
            if (before.reserve, before.pauses) == (after.reserve, after.pauses):
                return count - after.reserve

    def leave(spare):
        resource.setrlimit(resource.RLIMIT_NOFILE, (open_for_us() + spare, hard))

    def settled(open):
        # Until just `open` descriptors more than at the beginning are ours. Some are closed a little later than the
        # call returns: a socket's mailbox by libzmq's reaper (also of the one that starts a context), and what a
        # listener is searched through by the hub.
        end = time.monotonic() + 10
        while open_for_us() != len(baseline) + open:
            assert time.monotonic() < end, (open, open_descriptors(), admission.of_process().statistics())
            time.sleep(0.002)

    def at_rest():
        end = time.monotonic() + 10
        while open_descriptors() != baseline or ledger.unexplained(baseline):
            assert time.monotonic() < end, (open_descriptors(), ledger.unexplained(baseline))
            time.sleep(0.002)

    def until(condition):
        end = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < end
            time.sleep(0.002)
"""


def test_every_descriptor_in_turn_is_the_last(child: Child) -> None:
    """0 to 45 spare: with few nothing starts, with more it stops at a later step, with enough it works; all clean."""
    reached = child(
        PREPARE
        + """
    class Said(logging.Handler):
        def emit(self, record):
            assert "kernel" not in record.getMessage(), record.getMessage()  # it is our own limit

    logging.getLogger("datacenter.sockets").addHandler(Said())

    def steps(context):
        server = context.socket(zmq.ROUTER, owner="server")
        settled(HUB + CONTEXT + SOCKET)
        yield "server", server
        address = server.bind("tcp://127.0.0.1:*")
        settled(HUB + CONTEXT + SOCKET + 1)
        yield "bound", server
        client = context.socket(zmq.DEALER, owner="client")
        settled(HUB + CONTEXT + SOCKET + 1 + SOCKET)
        yield "client", client
        client.connect(address)
        client.raw.send(b"ping")
        assert server.raw.poll(5000)
        yield "served", client

    for spare in range(46):
        leave(spare)
        assert descriptor_limit.spare() == spare
        context, reached, kept = SocketContext("limited"), "nothing", []
        try:
            for reached, owned in steps(context):
                kept.append(owned)
        except DescriptorLimitError as error:
            assert "free" in str(error)
        assert context.close(5.0).clean
        leave(100)
        at_rest()
        print(reached)
    """
    ).split()
    assert len(reached) == 46
    steps = ["nothing", "server", "bound", "client", "served"]
    assert sorted(set(reached), key=steps.index) == steps
    assert reached == sorted(reached, key=steps.index), "more descriptors never reach less far"


def test_a_running_context_refuses_and_recovers(child: Child) -> None:
    child(
        PREPARE
        + """
    with SocketContext("full") as context:
        server = context.socket(zmq.ROUTER, owner="server")
        client = context.socket(zmq.DEALER, owner="client")
        client.connect(server.bind("tcp://127.0.0.1:*"))
        client.raw.send(b"ping")
        assert server.raw.poll(5000)
        server.raw.recv_multipart()
        ours = HUB + CONTEXT + 2 * SOCKET + 1 + 2  # a listener, and both ends of a connection
        settled(ours)
        for spare in range(descriptor_limit.RESERVE + 3):
            leave(spare)
            for use, costs, stays in (
                (lambda: context.socket(zmq.DEALER, owner="more").close(), SOCKET, 0),
                (lambda: server.bind("tcp://127.0.0.1:*"), descriptor_limit.BIND_COST, 1),
                (lambda: server.bind("ipc://*"), descriptor_limit.BIND_COST, 1),
            ):
                room = descriptor_limit.limit() - len(baseline) - ours
                try:
                    use()
                    done = True
                except DescriptorLimitError:
                    done = False
                assert done == (room >= descriptor_limit.RESERVE + costs), (spare, room, costs)
                ours += stays * done
                settled(ours)
            client.raw.send(b"ping")
            assert server.raw.poll(5000)
            server.raw.recv_multipart()
            if spare >= descriptor_limit.RESERVE + 2:
                break
        leave(100)
        context.socket(zmq.DEALER, owner="again").close()
    assert context.close().clean
    at_rest()
    """
    )


def test_a_listener_without_descriptors_serves_again_when_there_are(child: Child) -> None:
    """Incident L: accept fails until descriptors are free. Nothing floods the hub, nobody is lost."""
    child(
        PREPARE
        + """
    with SocketContext("listener") as context:
        server = context.socket(zmq.ROUTER, owner="server")
        clients = [context.socket(zmq.DEALER, owner=f"client {n}") for n in range(10)]
        address = server.bind("tcp://127.0.0.1:*")
        leave(40)
        for client in clients:
            client.connect(address)
        taken = []
        try:
            while True:
                taken.append(os.dup(0))
        except OSError:
            pass
        before = context.statistics().hub.events
        end = time.monotonic() + 0.3
        while time.monotonic() < end:
            clients[0].raw.poll(10)
        assert context.statistics().hub.events - before < 200
        for number in taken:
            os.close(number)
        for client in clients:
            client.raw.send(b"ping")
        for _ in clients:
            assert server.raw.poll(10000)
            server.raw.recv_multipart()
    assert context.close().clean
    leave(100)
    at_rest()
    """
    )


def test_a_client_without_descriptors_neither_spins_nor_aborts(child: Child) -> None:
    """Connects in flight when the last descriptor goes: libzmq tries again with its back-off until there are some."""
    child(
        PREPARE
        + """
    with SocketContext("client") as context, SocketContext("server") as other:
        server = other.socket(zmq.ROUTER, owner="server")
        address = server.bind("tcp://127.0.0.1:*")
        server.unbind()
        clients = [context.socket(zmq.DEALER, owner=f"client {n}", reconnect_min_ms=20) for n in range(20)]
        for client in clients:
            client.connect(address)
            client.raw.send(b"ping")
        leave(0)
        began = time.process_time()
        time.sleep(1.0)
        assert time.process_time() - began < 0.15
        leave(100)
        until(lambda: bool(server.bind(address)))
        for _ in clients:
            assert server.raw.poll(10000)
            server.raw.recv_multipart()
    assert context.close().clean and other.close().clean
    at_rest()
    """
    )


def test_the_count_is_that_of_proc(child: Child) -> None:
    child(
        PREPARE
        + """
    for _ in range(50):
        os.dup(0)
        assert descriptor_limit.open_count() == len(os.listdir("/proc/self/fd")) - 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (10, hard))
    assert descriptor_limit.spare() == 0
    """
    )
