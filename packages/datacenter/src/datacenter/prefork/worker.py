"""A worker's line to its supervisor: what it is told to do, what it says of itself.

It lives in one event loop, which must be one that no code of the user can hold up: the reactor's in a worker that
serves, the only one in a worker without such code. So a method that computes for a minute costs no sign of life, and
the supervisor's end is noticed at once, also then.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable
from typing import Any, Final

from datacenter import options
from datacenter.errors import CATALOGUE, DatacenterError
from datacenter.prefork import messages
from datacenter.prefork.pipe import Pipe
from datacenter.prefork.registrar import PipeRegistrar
from datacenter.sockets.ledger import Ledger
from datacenter.wire import Resolution, ServiceType

log = logging.getLogger("datacenter.prefork")
#: the status of a worker that outlived its supervisor and did not end by itself
ORPHANED: Final = 70
FLUSH_S: Final = 0.5
OWNER: Final = "pipe to supervisor"

Listener = Callable[[Resolution | DatacenterError], None]


class Worker:
    """See the module. Made, and closed, in its loop; `say` from any thread.

    on_end(urgent): it is to end, because it was told to or because the supervisor is gone; called in the loop, perhaps
    more than once. statistics(): what it counts, told with each sign of life. patience_s: how long it may take to end
    once the supervisor is gone, before the process is ended here.
    """

    def __init__(
        self,
        end: socket.socket,
        *,
        ledger: Ledger,
        on_end: Callable[[bool], None],
        statistics: Callable[[], messages.Statistics | None] = lambda: None,
        patience_s: float = 0.0,
    ) -> None:
        self.registrar = PipeRegistrar(self.say, self._all_registered)
        self._serves = self._is_registered = False
        self._loop = asyncio.get_running_loop()
        self._on_end = on_end
        self._statistics = statistics
        self._patience_s = patience_s
        self._listeners: dict[tuple[str, ServiceType], Listener] = {}
        self._families: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._pipe = Pipe(end, messages.to_worker, self._take, self._orphaned, ledger=ledger, owner=OWNER)
        self._timer = self._loop.call_later(options.ALIVE_S, self._live)

    def say(self, message: messages.FromWorker) -> None:
        """Tells the supervisor. Nothing happens once it is gone."""
        self._loop.call_soon_threadsafe(self._pipe.send, message)

    def serving(self, endpoint: str) -> None:
        """Tells the supervisor that this worker does its work, and, once it is registered, that it is ready. Any
        thread.
        """
        self._loop.call_soon_threadsafe(self._now_serves, endpoint)

    def watch(self, name: str, type_: ServiceType, listener: Listener) -> None:
        """Calls `listener` in the loop with what `name` stands for now and at every change, or with why it stands for
        nothing. One listener a name.
        """
        self._listeners[name, type_] = listener
        self._pipe.send(messages.Watch(name, type_))

    def unwatch(self, name: str, type_: ServiceType) -> None:
        """Ends a `watch`."""
        if self._listeners.pop((name, type_), None) is not None:
            self._pipe.send(messages.Unwatch(name, type_))

    async def family(self) -> dict[str, Any]:
        """The statistics of the whole family."""
        number = len(self._families) + 1
        self._families[number] = self._loop.create_future()
        self._pipe.send(messages.AskFamily(number))
        return await self._families[number]

    async def close(self) -> None:
        """Says what it has counted since it said so last, and closes the pipe."""
        self._timer.cancel()
        self._say_statistics()
        await self._pipe.flush(FLUSH_S)
        self._pipe.close()
        self.registrar.close()

    def _now_serves(self, endpoint: str) -> None:
        self._serves = True
        self._pipe.send(messages.Serving(endpoint))
        if self._is_registered:  # the registry may be quicker than the thread that serves
            self._pipe.send(messages.Ready())

    def _all_registered(self) -> None:
        self._is_registered = True
        if self._serves:
            self._pipe.send(messages.Ready())

    def _live(self) -> None:
        self._timer = self._loop.call_later(options.ALIVE_S, self._live)
        if not self._say_statistics():
            self._pipe.send(messages.Alive())

    def _say_statistics(self) -> bool:
        told = self._statistics()
        if told is not None:
            self._pipe.send(told)
        return told is not None

    def _take(self, message: messages.ToWorker) -> None:
        match message:
            case messages.End():
                self._on_end(message.urgent)
            case messages.Changed():
                resolution = message.resolution
                self._news(resolution.name, resolution.type, resolution)
            case messages.NoAnswer():
                error = CATALOGUE.get(message.code, DatacenterError)(message.message, message.hint)
                self._news(message.name, message.type, error)
            case messages.Family():
                asked = self._families.pop(message.request, None)
                if asked is not None and not asked.done():
                    asked.set_result(message.statistics)
            case _:
                self.registrar.take(message)

    def _news(self, name: str, type_: ServiceType, news: Resolution | DatacenterError) -> None:
        listener = self._listeners.get((name, type_))
        if listener is not None:
            listener(news)

    def _orphaned(self) -> None:
        log.warning("the supervisor is gone; this process ends")
        self._timer.cancel()
        self._loop.call_later(self._patience_s + options.END_MARGIN_S, os._exit, ORPHANED)
        self._on_end(False)
