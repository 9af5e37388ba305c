"""kazoo's client with each of its descriptors in the ledger, and dead in forked children.

kazoo makes three descriptors (its connection, and a socket pair that wakes its thread) and, at each turn of its loop,
an epoll. Here the loop waits with poll(2) instead, which needs none, and the three are entered as they are made. What
is in the ledger is closed by number inside fork() itself (sockets/fork.py), so a child sends nothing and ends nothing:
the session stays the parent's. Its copies of kazoo's objects are kept for ever, because their finalisers would close
numbers that are others' by then, and kazoo's own exit hook is taken back there: it would wait for threads that do not
exist.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import selectors
import socket
import threading
from collections.abc import Callable
from typing import Any

from kazoo.client import KazooClient
from kazoo.handlers.threading import SequentialThreadingHandler
from kazoo.handlers.utils import selector_select
from kazoo.retry import KazooRetry

from datacenter.sockets import fork
from datacenter.sockets.ledger import Ledger

log = logging.getLogger("datacenter.zookeeper")

#: pauses between attempts to reach a server: short, because a session ends while we wait
RETRY_MIN_S = 0.1
RETRY_MAX_S = 1.0
_clients: dict[int, ZooKeeperClient] = {}


class _Socket(socket.socket):
    """A socket that is in the ledger until it is closed."""

    ledger: Ledger

    def enter(self, ledger: Ledger, kind: str, owner: str) -> None:
        self.ledger = ledger
        ledger.register(self.fileno(), kind, owner)

    def close(self) -> None:
        with fork.still():
            number = self.fileno()
            if number >= 0:
                self.ledger.forget(number)
            super().close()


class _PollOnly:
    """What kazoo's `selector_select` takes for the module `selectors`."""

    EVENT_READ = selectors.EVENT_READ
    EVENT_WRITE = selectors.EVENT_WRITE
    DefaultSelector = selectors.PollSelector


class _Handler(SequentialThreadingHandler):  # type: ignore[misc]
    """kazoo's threads and sockets, entered in the ledger for `owner`."""

    def __init__(self, ledger: Ledger, owner: str, connect_s: float) -> None:
        super().__init__()
        self._ledger = ledger
        self._owner = owner
        self._connect_s = connect_s
        self.connection: _Socket | None = None

    def select(self, *args: Any, **keywords: Any) -> Any:
        return selector_select(*args, selectors_module=_PollOnly, **keywords)

    def create_socket_pair(self) -> tuple[socket.socket, socket.socket]:
        with fork.still():
            first, second = (_Socket(fileno=end.detach()) for end in socket.socketpair())
            for end in (first, second):
                end.enter(self._ledger, "unix", self._owner)
        return first, second

    def create_connection(self, address: tuple[str, int], **_: Any) -> socket.socket:
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        with fork.still():
            made = _Socket(family, socket.SOCK_STREAM)
            made.enter(self._ledger, "tcp", self._owner)
        self.connection = made
        try:
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # kazoo would give each server the whole session: with a first one that is cut off, there were none left
            made.settimeout(self._connect_s)
            made.connect(address)
        except BaseException:
            made.close()
            raise
        return made

    def spawn(self, func: Callable[..., Any], *args: Any, **keywords: Any) -> threading.Thread:
        thread = threading.Thread(target=func, args=args, kwargs=keywords, name="datacenter-zookeeper", daemon=True)
        thread.start()
        return thread


def _quiet(record: logging.LogRecord) -> bool:
    """kazoo has a warning for each attempt of each server. Ours tell of states; its are shown to who asks for more."""
    return record.levelno >= logging.ERROR or log.isEnabledFor(logging.INFO)


_kazoo_log = logging.getLogger("datacenter.zookeeper.kazoo")
_kazoo_log.addFilter(_quiet)


class ZooKeeperClient(KazooClient):  # type: ignore[misc]
    """kazoo's client of one session. Start it by `start_async`, end it by `end`. Any thread. Dead after a fork.

    session_s: so long shall the servers keep a session that they do not hear of; `granted_s`: so long they do.
    """

    def __init__(self, hosts: str, session_s: float, ledger: Ledger, owner: str) -> None:
        self.granted_s = session_s
        handler = _Handler(ledger, owner, max(0.2, session_s / 2 / len(hosts.split(","))))
        # -1: for ever. Each attempt takes a copy of it.
        retry = KazooRetry(
            max_tries=-1, delay=RETRY_MIN_S, max_delay=RETRY_MAX_S, backoff=2, sleep_func=handler.sleep_func
        )
        super().__init__(
            hosts=hosts,
            timeout=session_s,
            handler=handler,
            connection_retry=retry,
            logger=_kazoo_log,
        )
        connect = self._connection._connect

        def connect_and_note(*args: Any) -> Any:
            read_ms, write_ms = connect(*args)
            self.granted_s = read_ms * 1.5 / 1000  # kazoo waits two thirds of what was granted for an answer
            return read_ms, write_ms

        self._connection._connect = connect_and_note
        _clients[id(self)] = self

    def end(self, patience_s: float) -> bool:
        """Ends the session in order, its nodes with it, and the threads. True if that came to its end in time.

        Else the connection is shut down and the rest left to its threads; the servers end the session when they have
        not heard of it for its time.
        """
        ender = threading.Thread(target=self._end, name="datacenter-zookeeper-end", daemon=True)
        ender.start()
        ender.join(patience_s)
        connection = self.handler.connection
        if ender.is_alive() and connection is not None:
            with contextlib.suppress(OSError):  # its thread waits in a connect, a read or a write
                connection.shutdown(socket.SHUT_RDWR)
            ender.join(patience_s)
        _clients.pop(id(self), None)
        return not ender.is_alive()

    def _end(self) -> None:
        try:
            self.stop()
            self.close()
        except Exception as error:  # kazoo's own classes, for a thread that does not end
            log.warning("the session with ZooKeeper did not end in order: %s", error)


def _after_fork_in_child() -> None:
    for client in _clients.values():
        fork.keep_for_ever(client)
        atexit.unregister(client.handler.stop)
    _clients.clear()


fork.in_child(_after_fork_in_child)
