"""The watcher: the only process of a family that talks to the registry, on behalf of all workers.

It knows nothing that its supervisor does not know too: killed at any moment, another one is told everything again
within a fraction of a lease, so that no instance leaves the registry.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import logging
import signal
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import Raw, Struct

from datacenter import runtime
from datacenter.errors import DatacenterError
from datacenter.main_loop import run
from datacenter.options import CONNECT_DEADLINE_S
from datacenter.prefork import messages
from datacenter.prefork.fork_server import pass_over
from datacenter.prefork.pipe import Pipe
from datacenter.session import Session, SessionOptions
from datacenter.sockets.ledger import Ledger
from datacenter.wire import Resolution, ServiceType

if TYPE_CHECKING:
    from datacenter.broker import Broker

log = logging.getLogger("datacenter.prefork")
ALIVE_S: Final = 0.5  # it is silent after options.WATCHER_SILENT_S


class Registry(Struct):
    """What the watcher needs of a family's arguments; they may hold more.

    registry: zookeeper://…, and then the watcher is a broker itself, for its family alone, and asks no other one.
    """

    broker: str
    insecure: bool = False
    registry: str = ""


def main(end: socket.socket, arguments: Raw) -> None:
    """The entry of the forked process."""
    # It ends after the workers, which need it to leave the registry: when the supervisor says so, or is gone.
    signal.signal(signal.SIGTERM, pass_over)
    registry = msgspec.msgpack.decode(arguments, type=Registry)
    run(functools.partial(_main, end, registry), signals=())


async def _main(end: socket.socket, registry: Registry, stop: asyncio.Event) -> None:
    process = runtime.acquire()
    broker: Broker | None = None
    try:
        if registry.registry:
            from datacenter.broker import Broker

            broker = Broker("tcp://127.0.0.1:0", registry=registry.registry, insecure=registry.insecure)
            broker.start()
        address = broker.endpoint if broker is not None else registry.broker
        session = process.session(address, SessionOptions(insecure=registry.insecure))
        watcher = Watcher(end, session, process.ledger, stop)
        try:
            await stop.wait()
        finally:
            watcher.close()
            await runtime.apart(lambda: process.release_session(session))
    finally:
        if broker is not None:
            await broker.close()
        runtime.release(process)


class Watcher:
    """Carries messages between the supervisor's pipe (in the running loop) and a session (in the reactor)."""

    def __init__(self, end: socket.socket, session: Session, ledger: Ledger, stop: asyncio.Event) -> None:
        self._session = session
        self._stop = stop
        self._loop = asyncio.get_running_loop()
        self._listeners: dict[tuple[str, ServiceType], Callable[[Resolution | DatacenterError], None]] = {}
        self._pipe = Pipe(end, messages.to_watcher, self._take, stop.set, ledger=ledger, owner="pipe to supervisor")
        self._remove = session.on_state(self._state_changed)
        self._pipe.send(messages.SessionState(session.state))
        self._pipe.send(messages.Serving())
        self._registers = False
        self._patience = self._loop.call_later(CONNECT_DEADLINE_S, self._still_waits)
        self._alive()

    def close(self) -> None:
        self._timer.cancel()
        self._patience.cancel()
        self._remove()
        self._pipe.close()

    def _alive(self) -> None:
        self._pipe.send(messages.Alive())
        self._timer = self._loop.call_later(ALIVE_S, self._alive)

    def _still_waits(self) -> None:
        """Of who registers the session says it, and the supervisor once for all."""
        if self._session.state != "connected" and self._listeners and not self._registers:
            reason = self._session.why_not(CONNECT_DEADLINE_S)
            log.warning("%s; it is tried again and again. %s", reason.message, reason.hint)

    def _say(self, message: messages.FromWatcher) -> None:
        """From the reactor."""
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._pipe.send, message)

    def _state_changed(self, state: str, reason: str) -> None:
        self._say(messages.SessionState(state, reason))

    def _take(self, message: messages.ToWatcher) -> None:
        match message:
            case messages.End():
                self._stop.set()
            case messages.Register():
                self._register(message)
            case messages.Unregister():
                left = self._session.unregister(message.instance_id)
                left.add_done_callback(lambda _: self._say(messages.Unregistered(message.instance_id)))
            case messages.Watch():
                self._watch(message.name, message.type)
            case messages.Unwatch():
                listener = self._listeners.pop((message.name, message.type), None)
                if listener is not None:
                    self._session.unwatch(message.name, message.type, listener)

    def _register(self, message: messages.Register) -> None:
        id_ = message.instance.id
        self._registers = True

        def answered(future: concurrent.futures.Future[int]) -> None:
            error = None if future.cancelled() else future.exception()
            if isinstance(error, DatacenterError):
                self._say(messages.Refused(id_, error.code, error.message, error.hint))

        self._session.register(
            message.name,
            message.type,
            message.instance,
            on_drain=lambda: self._say(messages.DrainRequested(id_)),
            on_epoch=lambda epoch: self._say(messages.Registered(id_, epoch)),
        ).add_done_callback(answered)

    def _watch(self, name: str, type_: ServiceType) -> None:
        def listener(news: Any) -> None:
            if isinstance(news, Resolution):
                self._say(messages.Changed(news))
            else:
                self._say(messages.NoAnswer(name, type_, news.code, news.message, news.hint))

        if (name, type_) not in self._listeners:
            self._listeners[name, type_] = listener
            self._session.watch(name, type_, listener)
