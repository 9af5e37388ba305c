"""Registers a worker's instances by way of its supervisor: the worker has no session, and no descriptor of one.

Any thread may ask; `take` is called where the pipe is read. Futures are answered there.
"""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable
from typing import Any

from datacenter.errors import CATALOGUE, ClosedError, DatacenterError
from datacenter.futures import fail, succeed
from datacenter.prefork import messages
from datacenter.sockets.threads import InternalLock
from datacenter.wire import Instance, ServiceType


class PipeRegistrar:
    """See the module; the interface is Server's `Registrar`. `on_all()` whenever all that was asked for is registered.

    `say(message)` sends to the supervisor, from any thread.
    """

    def __init__(self, say: Callable[[messages.FromWorker], None], on_all: Callable[[], None]) -> None:
        self.epochs: dict[str, int] = {}
        self._say = say
        self._on_all = on_all
        self._lock = InternalLock()
        self._state = "connecting"
        self._drains: dict[str, Callable[[], object]] = {}
        self._registering: dict[str, concurrent.futures.Future[int]] = {}
        self._leaving: dict[str, concurrent.futures.Future[None]] = {}

    @property
    def is_connected(self) -> bool:
        """Whether the registry can be told anything now, as the supervisor said last."""
        return self._state == "connected"

    def register(
        self, name: str, type_: ServiceType, instance: Instance, on_drain: Callable[[], object]
    ) -> concurrent.futures.Future[int]:
        """Registers an instance and keeps it registered, whatever becomes of the watcher. The future gives its first
        epoch.
        """
        future = concurrent.futures.Future[int]()
        with self._lock:
            self._drains[instance.id] = on_drain
            self._registering[instance.id] = future
        self._say(messages.Register(name, type_, instance))
        return future

    def unregister(self, instance_id: str) -> concurrent.futures.Future[None]:
        """Takes an instance out of the registry."""
        future = concurrent.futures.Future[None]()
        with self._lock:
            self._drains.pop(instance_id, None)
            self.epochs.pop(instance_id, None)
            self._leaving[instance_id] = future
        self._say(messages.Unregister(instance_id))
        return future

    def take(self, message: messages.ToWorker) -> None:
        """What the supervisor says."""
        match message:
            case messages.Registered():
                self._registered(message)
            case messages.Refused():
                asked = self._registering.pop(message.instance_id, None)
                if asked is not None:
                    fail(asked, CATALOGUE.get(message.code, DatacenterError)(message.message, message.hint))
            case messages.Unregistered():
                left = self._leaving.pop(message.instance_id, None)
                if left is not None:
                    succeed(left, None)
            case messages.DrainRequested():
                drain = self._drains.get(message.instance_id)
                if drain is not None:
                    drain()
            case messages.SessionState():
                self._state = message.state

    def close(self) -> None:
        """Nobody answers any more."""
        waiting: list[concurrent.futures.Future[Any]] = [*self._registering.values(), *self._leaving.values()]
        for future in waiting:
            fail(future, ClosedError("the supervisor has ended"))

    def statistics(self) -> dict[str, int | float | str | None]:
        return {"broker": "by way of the supervisor", "state": self._state, "registrations": len(self.epochs)}

    def _registered(self, message: messages.Registered) -> None:
        with self._lock:
            if message.instance_id not in self._drains:
                return
            self.epochs[message.instance_id] = message.epoch
            complete = len(self.epochs) == len(self._drains)
            asked = self._registering.pop(message.instance_id, None)
        if asked is not None:
            succeed(asked, message.epoch)
        if complete:
            self._on_all()
