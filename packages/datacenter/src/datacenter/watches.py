"""The names that a process watches at a broker: what each of them stands for, and who wants to know.

A name is asked for when it is watched first, and again after each Welcome: what survives a connection is here. In the
reactor's thread.
"""

from __future__ import annotations

import concurrent.futures
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, get_args

from datacenter import wire
from datacenter.errors import DatacenterError, wrong_type
from datacenter.wire import Resolution, ServiceType

log = logging.getLogger("datacenter.session")

#: names are looked up by type: a process may watch thousands
_TYPES: Final[tuple[ServiceType, ...]] = get_args(ServiceType)
Listener = Callable[[Resolution | DatacenterError], None]


@dataclass
class Watch:
    resolution: Resolution | None = None
    relay: bool = False  # the broker is asked for a relay of the name
    listeners: list[Listener] = field(default_factory=list)
    registry: str = ""  # which one said so

    def is_newer(self, registry: str, resolution: Resolution) -> bool:
        """Whether what is known is of the same shared registry, and newer than `resolution`."""
        known = self.resolution
        return bool(registry) and registry == self.registry and known is not None and resolution.version < known.version


class Watches:
    """ask(build) sends the request that `build(number)` makes; unwatch(name) tells the broker that nobody watches it
    any more.
    """

    def __init__(
        self,
        ask: Callable[[Callable[[int], wire.ToBroker]], concurrent.futures.Future[Any]],
        unwatch: Callable[[str], None],
    ) -> None:
        self._ask = ask
        self._tell_broker = unwatch
        self._watches: dict[tuple[str, ServiceType], Watch] = {}
        #: which registry several brokers share: of one, what is older than what is known is ignored. "": not shared
        self.registry = ""

    def __len__(self) -> int:
        return len(self._watches)

    def add(self, name: str, type_: ServiceType, listener: Listener) -> None:
        """Calls `listener` with what the name stands for, at once if that is known, and at every change."""
        watch = self._watches.setdefault((name, type_), Watch())
        watch.listeners.append(listener)
        if watch.resolution is not None:
            listener(watch.resolution)
        else:
            self._ask_for(name, type_)

    def remove(self, name: str, type_: ServiceType, listener: Listener) -> None:
        """Ends one `add`. Nothing happens if it has ended."""
        watch = self._watches.get((name, type_))
        if watch is None or listener not in watch.listeners:
            return
        watch.listeners.remove(listener)
        if not watch.listeners:
            del self._watches[name, type_]
            if not any((name, other) in self._watches for other in _TYPES):
                self._tell_broker(name)

    def want_relay(self, name: str, type_: ServiceType) -> None:
        """Asks for a relay of a name that is watched, now and after each Welcome."""
        watch = self._watches.get((name, type_))
        if watch is not None and not watch.relay:
            watch.relay = True
            self._ask_for(name, type_)

    def ask_again(self) -> None:
        """Asks for every name: on a new connection the broker knows nothing of us."""
        for name, type_ in self._watches:
            self._ask_for(name, type_)

    def update(self, resolution: Resolution) -> None:
        """Takes over what a name stands for now, and tells those who watch it."""
        registered = resolution.state not in ("unknown", "settling")
        for type_ in _TYPES:
            key = resolution.name, type_
            watch = self._watches.get(key)
            if watch is None:
                continue
            if registered and key[1] != resolution.type:
                self.tell(key, wrong_type(resolution.name, resolution.type, key[1]))
                continue
            if resolution.state == "settling" and watch.resolution is not None and watch.resolution.instances:
                continue  # the broker has just started; what we know is better than what it does not know yet
            if registered and watch.is_newer(self.registry, resolution):
                continue  # this broker is a little behind the one before; it tells again once it knows
            watch.resolution, watch.registry = resolution, self.registry
            self.tell(key, resolution)

    def tell(self, key: tuple[str, ServiceType], news: Resolution | DatacenterError) -> None:
        """Calls the listeners of one name and type."""
        watch = self._watches.get(key)
        for listener in tuple(watch.listeners) if watch is not None else ():
            try:
                listener(news)
            except Exception:
                log.exception("a listener of %s raised", key[0])

    def _ask_for(self, name: str, type_: ServiceType) -> None:
        relay = self._watches[name, type_].relay
        self._ask(lambda request: wire.Resolve(request, name, type_, relay=relay)).add_done_callback(_seen)


def _seen(future: concurrent.futures.Future[Any]) -> None:
    """Looks at a result that goes another way, so that nobody complains that nobody looked."""
    if not future.cancelled():
        future.exception()
