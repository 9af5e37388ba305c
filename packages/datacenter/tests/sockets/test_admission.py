"""Listeners at the descriptor limit: they stop, what is open goes on, the process keeps a reserve, they come back.

Each case has its own process, with 128 descriptors. Every test ends with ledger == /proc.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

Child = Callable[..., str]

PREPARE = """
    import os, resource, socket, struct, sys, time, zmq
    from datacenter.sockets import SocketContext, admission, descriptor_limit
    from datacenter.sockets.ledger import Ledger, open_descriptors
    ledger = Ledger.open()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, hard))
    baseline = open_descriptors()
    RESERVE = 16  # an eighth

    def until(condition, seconds=10):
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, (admission.of_process(), open_descriptors())
            time.sleep(0.002)

    def admitted():
        return admission.of_process().statistics()

    def listens(address):
        local = f":{int(address.rpartition(':')[2]):04X} "
        with open("/proc/net/tcp") as file:
            return any(local in line and " 0A " in line for line in file)

    def listening(context, endpoint="tcp://127.0.0.1:*"):
        server = context.socket(zmq.ROUTER, owner="server", handshake_timeout_ms=60000)
        address = server.bind(endpoint)
        until(lambda: admitted().reserve == RESERVE and admitted().listeners == 1 and admitted().unguarded == 0)
        return server, address

    def cpu_of(seconds):
        began = time.process_time()
        time.sleep(seconds)
        return (time.process_time() - began) / seconds

    def ask(client, server):
        client.raw.send(b"ping")
        assert server.raw.poll(5000)
        who, frame = server.raw.recv_multipart()
        server.raw.send_multipart([who, frame])
        assert client.raw.poll(5000)
        client.raw.recv()

    class Crowd:
        # peers in another process: they connect and hold
        def __init__(self, address, count=300):
            self.pid = os.fork()
            if self.pid == 0:
                ledger.close_inherited()
                resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
                host, _, port = address.removeprefix("tcp://").rpartition(":")
                held = []
                for _ in range(count):
                    made = socket.socket()
                    made.setblocking(False)
                    made.connect_ex((host, int(port)))
                    held.append(made)
                time.sleep(60)
                os._exit(0)

        def leave(self):
            os.kill(self.pid, 9)
            os.waitpid(self.pid, 0)
"""
END = """
    assert context.close().clean
    until(lambda: open_descriptors() == baseline and not ledger.unexplained(baseline))
    assert admitted().listeners == admitted().reserve == 0
"""


def test_a_crowd_is_not_admitted_and_what_is_open_goes_on(child: Child) -> None:
    """No spin, no flood of events, the reserve is free for the process itself, and new peers are served afterwards."""
    child(
        PREPARE
        + """
    context = SocketContext("crowded")
    server, address = listening(context)
    client = context.socket(zmq.DEALER, owner="client")
    client.connect(address)
    ask(client, server)
    assert admitted().accepting
    crowd = Crowd(address)
    until(lambda: not admitted().accepting)
    until(lambda: cpu_of(0.2) < 0.1)
    assert descriptor_limit.spare() >= RESERVE - 4, descriptor_limit.spare()
    for _ in range(10):
        ask(client, server)
    events = context.statistics().hub.events
    assert cpu_of(1.0) < 0.1
    assert context.statistics().hub.events - events < 50
    own = context.socket(zmq.DEALER, owner="own need", monitored=False) if descriptor_limit.spare() > 16 else None
    crowd.leave()
    left = time.monotonic()
    new = client if own is None else own
    until(lambda: admitted().accepting, 5)
    late = context.socket(zmq.DEALER, owner="late")
    late.connect(address)
    ask(late, server)
    assert time.monotonic() - left < 5
    assert admitted().pauses >= 1
    if own is not None:
        own.close()
    for owned in (late, client, server):
        owned.close()
"""
        + END
    )


def test_when_the_process_itself_takes_the_last_descriptor_nothing_spins(child: Child) -> None:
    """No connection was accepted, so no event tells: the hub counts by itself. The port stays ours all the time."""
    child(
        PREPARE
        + """
    context = SocketContext("short")
    server, address = listening(context)
    taken = []
    try:
        while True:
            taken.append(os.dup(0))
    except OSError:
        pass
    until(lambda: not admitted().accepting)
    assert descriptor_limit.spare() == RESERVE
    crowd = Crowd(address, 20)
    assert cpu_of(1.0) < 0.1
    assert admitted().reserve == 0
    crowd.leave()
    for number in taken:
        os.close(number)
    until(lambda: admitted().accepting and admitted().reserve == RESERVE, 3)
    client = context.socket(zmq.DEALER, owner="client")
    client.connect(address)
    ask(client, server)
    for owned in (client, server):
        owned.close()
"""
        + END
    )


def test_the_process_itself_gets_the_reserve_before_peers_do(child: Child) -> None:
    child(
        PREPARE
        + """
    context = SocketContext("own needs")
    server, address = listening(context)
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptor_limit.open_count() + 8, hard))
    relay = context.socket(zmq.ROUTER, owner="a relay")  # 3 descriptors and 16 more must be free; there are 8 and 16
    assert not admitted().accepting and admitted().reserve == 0
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, hard))
    until(lambda: admitted().accepting)
    for owned in (relay, server):
        owned.close()
"""
        + END
    )


def test_what_is_unbound_at_once_is_not_brought_back_by_its_late_event(child: Child) -> None:
    """LISTENING is drained after the unbind: the number in it belongs to somebody else by then."""
    child(
        PREPARE
        + """
    context = SocketContext("late")
    server, address = listening(context)
    for _ in range(200):
        server.bind("tcp://127.0.0.1:*")
        server.unbind()
    seen = context.socket(zmq.ROUTER, owner="seen")
    seen.bind("tcp://127.0.0.1:*")
    until(lambda: admitted().listeners == 2 and admitted().unguarded == 0)
    for owned in (seen, server):
        owned.close()
"""
        + END
    )


def test_a_listener_is_found_and_stopped_although_nothing_can_be_opened_after_its_bind(child: Child) -> None:
    """libzmq begins to watch it later than the bind: what looks for it then is open already."""
    child(
        PREPARE
        + """
    from datacenter.sockets import fork
    context = SocketContext("late")
    server = context.socket(zmq.ROUTER, owner="server")
    peers = [socket.socket() for _ in range(10)]
    with fork.still():  # the hub does not look yet
        address = server.bind("tcp://127.0.0.1:*")
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    for peer in peers:
        peer.connect(("127.0.0.1", int(address.rpartition(":")[2])))
    until(lambda: admitted().listeners == 1 and admitted().unguarded == 0 and not admitted().accepting)
    assert cpu_of(0.5) < 0.2
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, hard))
    until(lambda: admitted().accepting)
    client = context.socket(zmq.DEALER, owner="client")
    client.connect(address)
    ask(client, server)
    for owned in (client, server, *peers):
        owned.close()
"""
        + END
    )


@pytest.mark.parametrize("how", ["server.close()", "server.unbind()", "context.close()", "del server"])
def test_a_listener_ends_while_it_is_paused(child: Child, how: str) -> None:
    """libzmq takes it out of its epoll without noticing; the port is free; nothing is switched on afterwards."""
    child(
        PREPARE
        + f"""
    import warnings
    warnings.simplefilter("ignore", ResourceWarning)
    context = SocketContext("ending")
    server, address = listening(context)
    admission.of_process().make_room()
    assert not admitted().accepting and admitted().pauses == 0
    {how}
    until(lambda: not listens(address))
    if "context" not in {how!r}:
        again = context.socket(zmq.ROUTER, owner="again")
        again.bind(address)
        until(lambda: admitted().accepting and admitted().listeners == 1)
        again.close()
    server = None
"""
        + END
    )


def test_a_context_starts_while_peers_take_what_they_can(child: Child) -> None:
    """Two to four descriptors left in the middle of its start would be an abort: peers get none meanwhile."""
    child(
        PREPARE
        + """
    context = SocketContext("first")
    server, address = listening(context)
    from datacenter.errors import DescriptorLimitError
    for _ in range(4):
        until(lambda: admitted().accepting)
        crowd = Crowd(address, 200)
        while admitted().accepting:
            second = SocketContext("second")
            try:
                second.socket(zmq.DEALER, owner="second").close()
            except DescriptorLimitError:
                pass
            assert second.close().clean
        crowd.leave()
    server.close()
"""
        + END
    )


def test_a_forked_child_leaves_the_parents_listener_alone(child: Child) -> None:
    """The epoll is shared with the parent: nothing that the child does may switch its listener off or on."""
    child(
        PREPARE
        + """
    context = SocketContext("parent")
    server, address = listening(context)
    pid = os.fork()
    if pid == 0:
        ledger.close_inherited()
        admission.of_process().make_room()
        admission.of_process().check(accepted=True)
        os._exit(0 if admitted().listeners == 0 else 1)
    assert os.waitpid(pid, 0)[1] == 0
    client = context.socket(zmq.DEALER, owner="client")
    client.connect(address)
    ask(client, server)
    for owned in (client, server):
        owned.close()
"""
        + END
    )


def test_without_a_descriptor_bind_is_refused_by_the_kernel_not_by_abort(child: Child) -> None:
    """libzmq's own bind to a literal address aborts in getifaddrs(): ours is made without it."""
    child(
        PREPARE
        + """
    from datacenter.errors import DescriptorLimitError
    context = SocketContext("bind")
    server = context.socket(zmq.ROUTER, owner="server")
    descriptor_limit.require = lambda cost, what: None  # another thread was quicker
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptor_limit.open_count(), hard))
    for endpoint in ("tcp://127.0.0.1:*", "tcp://[::1]:*"):
        try:
            server.bind(endpoint)
        except DescriptorLimitError:
            continue
        raise AssertionError(endpoint)
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, hard))
    server.bind("tcp://127.0.0.1:*")
    server.close()
"""
        + END
    )
