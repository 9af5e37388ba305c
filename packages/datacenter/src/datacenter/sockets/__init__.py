"""sockets/: the only code that makes or closes a ZeroMQ socket.

    with SocketContext("example") as context:
        client = context.socket(zmq.DEALER, owner="client")
        client.connect("tcp://127.0.0.1:7700")
        client.raw.send(b"hello")

What follows is why it is built as it is: what libzmq really does. Line numbers are those of its tag v4.3.5, `src/`.

What a socket costs
    A context is one eventfd from its birth (ctx.cpp:49). Its first socket starts the reaper and an I/O thread: two
    eventfds and two epolls more (ctx.cpp:386). Each socket is an eventfd, its mailbox; each listener and connection a
    descriptor of its own; a monitor two hidden sockets. So a monitored client of one peer is four descriptors and three
    slots of max_sockets. Slots are a table made at the first socket; when it is full zmq_socket fails with EMFILE
    (ctx.cpp:475), "Too many open files", although thousands are free. `SocketLimitError` is that one,
    `DescriptorLimitError` the other.

What closing does
    zmq_close only posts the socket to the reaper thread and returns; it never blocks, whatever the linger
    (socket_base.cpp:1388). The reaper asks each connection's I/O thread to end it, waits for all answers
    (own.cpp:165), and closes the eventfd last, in ~socket_base_t (265). Hence a descriptor count falls a little after
    close(), and hence the great leak: an I/O thread that does not come back to its loop never answers, and every
    socket with a TCP or IPC connection that is closed from then on keeps its eventfd for ever. Nothing fails until
    the limit is reached, hours later, in a place that is innocent.

What blocks an I/O thread
    Its own monitor. An event is sent with a blocking send and the result ignored, with the monitor's mutex held
    (socket_base.cpp:1938-2010). The hidden PAIR has a high-water mark of 1000 that cannot be changed, and the reader's
    is added to it: 2000 events, which a dead peer at 1 ms makes in 0.8 s and at the default 100 ms in 113 s. A PAIR
    without any reader refuses at once (pair.cpp:57), so the first event blocks. Masks only slow it down: a peer that
    accepts and closes makes three events an attempt that everybody wants to see.
    So each reader has RCVHWM 0, which makes the pipe unbounded (pipe.cpp: either mark 0 means none), set before its
    connect, since the pipe is fixed there; it connects *before* the monitor starts, since libzmq then has somebody to
    send to from the first event on; and one thread, the hub, drains all of them from birth to death. This is the one
    queue of datacenter without a bound: 130 bytes an event while the hub is away, against a frozen process.

What blocks the interpreter
    pyzmq holds the GIL in Socket.monitor(), disable_monitor() and bind(). disable_monitor() takes the monitor's mutex;
    if the I/O thread sits in a blocked send it never gets it, and no other Python thread runs again, not even the one
    that would drain the reader; SIGINT has no effect. Readers that cannot be full make these calls safe.

What blocks the reaper
    ~socket_base_t stops the monitor, and that sends MONITOR_STOPPED, blocking as well (2026). If the reader was closed
    first, the reaper stays there, and from then on every closed socket leaks, also unconnected ones. MONITOR_STOPPED is
    in none of our masks; nothing waits for it; and the order is fixed in one place, `MonitorHub.release`:
    disable the monitor while the reader is alive, read what is left, take it out of epoll, close it, then the socket.

What a name is worth
    The inproc name of a monitor is freed by the reaper, some time. pyzmq makes it of the descriptor's number, which is
    reused: 240 of 300 quick re-makes failed with EADDRINUSE. Ours are counted and never come again.
    A descriptor's number in an event is worth as little: it may be closed, and reused, before the event is read.

What an inproc connect without a bind does
    It is kept pending, and zmq_ctx_term makes a socket for each one to connect it to; if there is no room for that
    socket it aborts (ctx.cpp:142). The only pending connect here is a reader's, for the moment until its monitor
    starts. If the monitor cannot start, the reader is kept for the next one, and at the end its name is bound once.

What EMFILE does
    libzmq aborts, and Python cannot catch it, in: the first socket of a context with two to four descriptors left
    (epoll.cpp:38), a bind to a literal address with none, as getifaddrs needs one (ip_resolver.cpp:542), and an accept
    at an IPC address (ipc_listener.cpp:376). A TCP listener with none left retries accept for ever at 100 % CPU, with
    125 000 events a second (masked). So nothing is begun without a reserve (descriptor_limit.py), peers cannot take it
    (admission.py), addresses are bound without getifaddrs (listening_socket.py), the eventfds and epolls of a context
    or socket are opened before libzmq is called and its own calls answered with them (SocketContext._at_hand), and the
    rest is kept from libzmq (peer_guard.py). docs/aborts.md has all of its abort conditions.

What terminating does
    zmq_ctx_term sends `stop` to every socket, which wakes each blocked call with ETERM, also the I/O thread's send to a
    monitor, and then waits until every socket is closed, without a time limit (ctx.cpp:129). It runs in a helper thread
    here; if it has not ended by the deadline it is left alone with everything it uses, and named in the report.
    Linger is 0 by default, and BLOCKY off: otherwise it waits for messages that nobody will fetch.

What fork does
    The child has all descriptors and none of the threads. send() on an old socket "succeeds" and loses the message,
    recv() never returns (signaler.cpp:149, 206), close() does nothing. As long as the child lives, the parent's port
    stays in LISTEN and its peers see no end. So every object knows the epoch that it was made in (fork.py) and refuses;
    the ledger's library closes the inherited numbers inside fork(); no finaliser of the parent's objects runs in the
    child, because it would close a number that belongs to somebody else by then. Nothing is ever removed from an
    inherited epoll: it is shared with the parent, whose hub would go deaf.

What threads may do
    A zmq socket belongs to one thread at a time; the GIL does not help, since send and recv release it (two threads in
    one socket: "Assertion failed" within seconds). A reader passes between the hub and the closing thread under its
    own lock. At exit, sockets of threads that still run are not touched: terminating wakes those threads first.
"""

from datacenter.sockets.context import SocketContext
from datacenter.sockets.events import MonitorEvent
from datacenter.sockets.hub import HubStatistics, MonitorHub
from datacenter.sockets.options import SocketOptions
from datacenter.sockets.owned import OwnedSocket, SocketStatistics
from datacenter.sockets.reports import CloseReport, ContextStatistics

__all__ = [
    "CloseReport",
    "ContextStatistics",
    "HubStatistics",
    "MonitorEvent",
    "MonitorHub",
    "OwnedSocket",
    "SocketContext",
    "SocketOptions",
    "SocketStatistics",
]
