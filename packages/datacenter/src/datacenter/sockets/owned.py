"""A ZeroMQ socket with an owner: bound and connected to checked addresses, watched by the hub, closed in the one safe
order.

The order (facts in sockets/__init__.py): disable the monitor while the hub's reader still takes everything, read what
is left, close the reader, then the socket. Any other order can block libzmq's reaper or I/O thread, or the interpreter,
for ever.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
import warnings
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING

import zmq

from datacenter.errors import (
    AddressError,
    AddressInUseError,
    ClosedError,
    DatacenterError,
    InsecureAddressError,
    WrongThreadError,
)
from datacenter.sockets import addresses, admission, descriptor_limit, fork, listening_socket, peer_guard
from datacenter.sockets.hub import MonitorHub
from datacenter.sockets.ledger import Ledger
from datacenter.sockets.monitor_reader import MonitorReader

if TYPE_CHECKING:
    from datacenter.sockets.context import SocketContext


@dataclass(frozen=True)
class SocketStatistics:
    """A socket at one moment. `events` counts monitor events since its birth; `state` is one of the words of
    `OwnedSocket.state`.
    """

    kind: str
    owner: str
    generation: int
    state: str
    endpoint: str
    events: int


class OwnedSocket:
    """Made by `SocketContext.socket()`. Belongs to the thread that made it until another calls `move_here()`; use in
    any other raises WrongThreadError. A context manager; warns when collected unclosed.

    `raw` is the zmq.Socket, for bare send and recv on the hot path: keep the OwnedSocket as long as the raw one is
    used. `generation` is unique in the process and only grows. In a forked child close() does nothing, and everything
    else raises ForkedError.
    """

    def __init__(
        self,
        context: SocketContext,
        raw: zmq.Socket[bytes],
        *,
        owner: str,
        generation: int,
        ledger: Ledger,
        account: str,
        hub: MonitorHub,
        reader: MonitorReader | None,
    ) -> None:
        self.owner = owner
        self.generation = generation
        self.kind: str = zmq.SocketType(int(raw.getsockopt(zmq.TYPE))).name
        self.home = threading.current_thread()
        self._context = context
        self._raw = raw
        self._ledger = ledger
        self._account = account
        self._hub = hub
        self._reader = reader
        self._epoch = fork.current()
        self._closing = threading.Lock()
        self._closed = False
        self._bound: list[str] = []
        self._listeners: list[tuple[int, int]] = []  # number and inode of what listens over TCP
        self._connected: dict[str, str] = {}

    # --- looking at it

    @property
    def raw(self) -> zmq.Socket[bytes]:
        """The zmq.Socket. Raises ClosedError, ForkedError."""
        self._check()
        return self._raw

    @property
    def closed(self) -> bool:
        """True once close() was called."""
        fork.check(self._epoch, self._name())
        return self._closed

    @property
    def endpoint(self) -> str:
        """The address last bound (as it really is) or connected to; "" if neither."""
        fork.check(self._epoch, self._name())
        return (self._bound or list(self._connected) or [""])[-1]

    @property
    def state(self) -> str:
        """One of: idle, listening, connecting, connected, disconnected, closed, forked. Without a monitor, `connecting`
        is all it can say.
        """
        if fork.ended(self._epoch):
            return "forked"
        if self._closed:
            return "closed"
        if self._bound:
            return "listening"
        if not self._connected:
            return "idle"
        last = self._reader.last.name if self._reader and self._reader.last else ""
        if last in ("CONNECTED", "HANDSHAKE_SUCCEEDED"):
            return "connected"
        return "disconnected" if last == "DISCONNECTED" or last.startswith("HANDSHAKE_FAILED") else "connecting"

    def statistics(self) -> SocketStatistics:
        """See SocketStatistics. Raises ForkedError."""
        return SocketStatistics(self.kind, self.owner, self.generation, self.state, self.endpoint, self._events())

    def _events(self) -> int:
        return self._reader.events if self._reader else 0

    def _name(self) -> str:
        return f"{self.kind} socket {self.owner!r}"

    def __repr__(self) -> str:
        return f"<OwnedSocket {self.kind} {self.owner!r} {self.state}, {self._events()} events>"

    # --- addresses

    def bind(self, endpoint: str, *, insecure: bool = False) -> str:
        """Listen; returns the actual address, with the port that was chosen.

        Raises AddressError, AddressInUseError, InsecureAddressError (reachable from other machines without CURVE, and
        not `insecure`), DescriptorLimitError, ClosedError, ForkedError. May block in getaddrinfo if the host is a name.
        """
        self._check()
        address = addresses.for_bind(endpoint)
        self._protect(address, insecure, "listen at")
        if address.scheme != "inproc":
            descriptor_limit.require(descriptor_limit.BIND_COST, f"{self._name()} at {endpoint}")
        # A reader's LISTENING event tells which descriptor it is.
        told = address.scheme != "inproc" and self._reader is not None
        try:
            with contextlib.ExitStack() as stack:
                if told:
                    stack.enter_context(admission.of_process().listening(self.generation))
                stack.enter_context(self._ledger.owner(self._account))
                self._bind(address)
        except (OSError, zmq.ZMQError) as error:
            raise self._address_error(error, endpoint) from error
        actual = bytes(self._raw.getsockopt(zmq.LAST_ENDPOINT)).rstrip(b"\0").decode()
        self._bound.append(actual)
        if address.scheme == "inproc":
            self._context.inproc_names.add(actual)
        return actual

    def _bind(self, address: addresses.Address) -> None:
        if address.scheme == "inproc":
            self._raw.bind(address.text)
            return
        guard = peer_guard.of_process()
        guard.install(hooked=self._ledger.exact)
        if address.scheme == "ipc":
            self._raw.bind(address.text)
            return
        number = listening_socket.make(address, int(self._raw.getsockopt(zmq.BACKLOG)), self._ledger)
        try:
            guard.watch(number)
            inode = os.fstat(number).st_ino
            self._raw.setsockopt(zmq.USE_FD, number)
            self._raw.bind(address.text)  # it is libzmq's from here on
            self._listeners.append((number, inode))
        except BaseException:
            self._ledger.close_number(number)
            raise
        finally:
            with contextlib.suppress(zmq.ZMQError):  # ETERM
                self._raw.setsockopt(zmq.USE_FD, -1)

    def unbind(self, endpoint: str = "") -> None:
        """Stop listening at `endpoint`, as bind() returned it ("": the last). Raises AddressError if it is not bound
        there.
        """
        self._check()
        actual = endpoint or self.endpoint
        if actual not in self._bound:
            raise AddressError(
                f"{self._name()} does not listen at {actual!r}.",
                f"It listens at: {', '.join(self._bound) or 'nothing'}.",
            )
        admission.of_process().closed(self.generation, actual)
        self._raw.unbind(actual)
        self._bound.remove(actual)
        self._context.inproc_names.discard(actual)

    def connect(self, endpoint: str, *, insecure: bool = False, resolve: bool = True) -> str:
        """Connect, now and after every loss; whether it succeeded is told by the monitor. Returns the numeric address.

        A host name is resolved here, once, which may block; libzmq gets the number. Without `resolve` it is an
        AddressError: for endpoints that somebody else has named, and threads that must not wait. Raises as bind() does,
        but for AddressInUseError.
        """
        self._check()
        address = addresses.for_connect(endpoint, resolve=resolve)
        self._protect(address, insecure, "connect to")
        if address.scheme == "inproc" and address.text not in self._context.inproc_names:
            # A pending inproc connect makes libzmq abort when the context ends without room for a socket (ctx.cpp:142).
            raise AddressError(f"Nothing is bound to {endpoint!r} in this context.", "Bind first, then connect.")
        if address.scheme != "inproc":
            descriptor_limit.require(descriptor_limit.CONNECT_COST, f"{self._name()} to {endpoint}")
        try:
            with self._ledger.owner(self._account):
                self._raw.connect(address.text)
        except zmq.ZMQError as error:
            raise self._address_error(error, endpoint) from error
        self._connected[endpoint] = address.text
        return address.text

    def disconnect(self, endpoint: str = "") -> None:
        """Let go of `endpoint`, as given to connect() ("": the last). Raises AddressError if it was never connected."""
        self._check()
        wanted = endpoint or next(reversed(self._connected), "")
        if wanted not in self._connected:
            raise AddressError(
                f"{self._name()} is not connected to {wanted!r}.",
                f"It is to: {', '.join(self._connected) or 'nothing'}.",
            )
        self._raw.disconnect(self._connected.pop(wanted))

    def _protect(self, address: addresses.Address, insecure: bool, verb: str) -> None:
        if not address.local and not insecure and self._raw.getsockopt(zmq.MECHANISM) != zmq.CURVE:
            raise InsecureAddressError(
                f"{self._name()} may not {verb} {address.text}: other machines can reach it, and no key protects it.",
                "Use 127.0.0.1, give CURVE keys, or say `insecure` where the network is trusted.",
            )
        if address.ipv6:
            self._raw.setsockopt(zmq.IPV6, 1)

    def _address_error(self, error: OSError | zmq.ZMQError, endpoint: str) -> DatacenterError:
        number = error.errno or 0
        if number == errno.EADDRINUSE:
            where = ":" + endpoint.rpartition(":")[2] if endpoint.startswith("tcp") else endpoint.partition("://")[2]
            return AddressInUseError(
                f"{endpoint} is taken.", f"Who listens there is told by `leakline holders {where}`."
            )
        if number in descriptor_limit.SHORTAGES:
            return descriptor_limit.refused(number, endpoint)
        if number == zmq.ETERM:
            return ClosedError(f"{self._name()}: its context was closed.", "Make a new one.")
        what = {
            errno.EACCES: "not permitted (ports below 1024 need root)",
            errno.EADDRNOTAVAIL: "no address of this machine",
        }
        return AddressError(f"{endpoint}: {what.get(number, error.strerror or error)}.", "Check the address.")

    # --- the end

    def move_here(self) -> None:
        """It belongs to the calling thread from now on. The former one must have used it for the last time, and have
        told this one through a lock or a queue: libzmq needs that barrier.
        """
        fork.check(self._epoch, self._name())
        self.home = threading.current_thread()

    def _check(self) -> None:
        fork.check(self._epoch, self._name())
        if threading.current_thread() is not self.home and self.home.is_alive():
            raise WrongThreadError(
                f"{self._name()} belongs to thread {self.home.name}, and {threading.current_thread().name} used it.",
                "Hand over to that thread what is to be done there: docs/ownership.md.",
            )
        if self._closed:
            raise ClosedError(f"{self._name()} is closed.", "Make a new one.")

    def close(self) -> None:
        """Close it, its monitor and the monitor's reader, in the one safe order. Idempotent, never blocks, does nothing
        in a forked child.

        May be called from another thread if no thread is using the socket.
        """
        if fork.ended(self._epoch):
            return
        with self._closing:
            if self._closed:
                return
            self._closed = True
        _close_parts(self._hub, self._reader, self._raw, self._ledger, self._account, self.generation)
        self._context.closed_one(self.generation, self._bound)

    def wait_unbound(self, deadline_s: float) -> bool:
        """After close(): waits until its TCP ports are free to be bound again; False if one is not in time. Before it,
        False at once: at the exit a socket whose thread does not answer stays open.

        libzmq closes what listens in its I/O thread, after its reaper has told it to: on a busy machine long after
        close() has returned. Any thread; a forked child has nothing to wait for.
        """
        if not self._closed:
            return False
        end, pause_s = time.monotonic() + deadline_s, 0.0002
        while not fork.ended(self._epoch) and any(_is_open(*listener) for listener in self._listeners):
            if time.monotonic() >= end:
                return False
            time.sleep(pause_s)
            pause_s = min(pause_s * 2, 0.02)
        return True

    def abandon(self) -> None:
        """Leave it open for ever, because a thread that does not answer may be inside it (called by SocketContext at
        exit).
        """
        self._closed = True
        fork.keep_for_ever(self)

    def __enter__(self) -> OwnedSocket:
        self._check()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_closed", True) or fork.ended(self._epoch):
            return
        parts = (self._hub, self._reader, self._raw, self._ledger, self._account, self.generation)
        said = f"{self!r} was collected unclosed; close() it, or use `with`"
        try:
            warnings.warn(said, ResourceWarning, source=self, stacklevel=1)
        finally:
            # A finaliser may run inside any lock of any thread, so the hub's thread does the closing.
            self._hub.adopt(lambda: _close_parts(*parts))
            self._context.closed_one(self.generation, self._bound)


def _is_open(number: int, inode: int) -> bool:
    try:
        return os.fstat(number).st_ino == inode
    except OSError:
        return False


def _close_parts(
    hub: MonitorHub,
    reader: MonitorReader | None,
    raw: zmq.Socket[bytes],
    ledger: Ledger,
    account: str,
    generation: int,
) -> None:
    if reader is not None:
        hub.release(reader)
    admission.of_process().closed(generation)
    raw.close()  # linger is an option, set at birth; zmq_close() itself never blocks (socket_base.cpp:1388)
    ledger.release_owner(account)
