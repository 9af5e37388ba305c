"""The broker's relays: carries out what its sessions decide, in a thread of its own.

A relay is made, given its instances, and ended in this thread: each may take milliseconds, one that does not stop up to
`stop_deadline_s`, and the broker's loop answers heartbeats meanwhile. Orders do not queue: the latest word for a name
replaces the one before. What has become of them is told in the broker's loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import Final

from datacenter.broker.relay_manager import RelayManager, RelayManagerStatistics
from datacenter.broker.sessions import RelayOrder
from datacenter.errors import ClosedError, DatacenterError
from datacenter.options import CLOSE_DEADLINE_S
from datacenter.wire import ServiceType

log = logging.getLogger("datacenter.relay")

#: how often relays are looked at that nobody needs, or that could not be made
TICK_S: Final = 1.0


class Relays:
    """See the module. `order` and `close` are thread-safe. After a fork nothing of it may be used.

    on_made(name, endpoint): the relay listens there, or nowhere any more (""). on_refused(name, type, error): it
    cannot be made now; it is tried again every TICK_S while its name has instances. Both are called in `loop`.
    """

    def __init__(
        self,
        manager: RelayManager,
        loop: asyncio.AbstractEventLoop,
        on_made: Callable[[str, str], None],
        on_refused: Callable[[str, ServiceType, DatacenterError], None],
    ) -> None:
        self._manager = manager
        self._loop = loop
        self._on_made = on_made
        self._on_refused = on_refused
        self._news = threading.Condition()
        # Under the condition's lock:
        self._orders: dict[str, RelayOrder] = {}
        self._closed = False
        # Of the thread:
        self._latest: dict[str, RelayOrder] = {}
        self._endpoints: dict[str, str] = {}
        self._thread = threading.Thread(target=self._run, name="datacenter-relays", daemon=True)
        self._thread.start()

    def order(self, orders: Iterable[RelayOrder]) -> None:
        """Returns at once. Nothing happens after close()."""
        with self._news:
            if self._closed:
                return
            self._orders.update((order.name, order) for order in orders)
            self._news.notify()

    def close(self) -> None:
        """Ends all relays and the thread. Idempotent; bounded; not to be called in the loop's thread."""
        with self._news:
            self._closed = True
            self._news.notify()
        report = self._manager.close(CLOSE_DEADLINE_S)
        if not report.clean:
            log.warning("not ended within %.1f s: %s", report.seconds, ", ".join(report.still_open))
        self._thread.join(CLOSE_DEADLINE_S)

    def statistics(self) -> RelayManagerStatistics:
        """See RelayManagerStatistics."""
        return self._manager.statistics()

    # --- in the thread

    def _run(self) -> None:
        due = time.monotonic() + TICK_S
        while True:
            with self._news:
                while not self._orders and not self._closed and time.monotonic() < due:
                    self._news.wait(due - time.monotonic())
                if self._closed:
                    return
                orders, self._orders = self._orders, {}
            for order in orders.values():
                self._carry_out(order)
            if time.monotonic() >= due:
                self._tick()
                due = time.monotonic() + TICK_S

    def _tick(self) -> None:
        leases = {name: len(order.endpoints) for name, order in self._latest.items()}
        try:
            ended = self._manager.tick(time.monotonic(), leases)
        except DatacenterError as error:  # closed meanwhile
            log.debug("relays were not looked at: %s", error)
            return
        for name in ended:
            log.info("the relay of %s was not needed any more", name)
            self._latest.pop(name, None)
            self._tell_made(name, "")
        for name, order in tuple(self._latest.items()):
            relay = self._manager.get(name)
            if relay is None or relay.state == "ended":  # it could not be made, or ended by itself
                self._carry_out(order)

    def _carry_out(self, order: RelayOrder) -> None:
        name = order.name
        self._latest[name] = order
        if not order.endpoints and self._manager.get(name) is None:
            del self._latest[name]
            self._tell_made(name, "")
            return
        try:
            endpoint = self._serve(order)
        except ClosedError as error:
            log.debug("no relay of %s: %s", name, error)  # the manager is closed: the broker ends
        except DatacenterError as error:
            log.warning("no relay of %s: %s", name, error)
            self._tell_made(name, "")
            self._call(self._on_refused, name, order.type, error)
        else:
            self._tell_made(name, endpoint)

    def _serve(self, order: RelayOrder) -> str:
        relay = self._manager.get_or_create(order.name, order.type)
        try:
            relay.set_instances(order.endpoints)
        except ClosedError:  # it has ended by itself: a new one takes its place
            self._manager.remove(order.name, relay)
            relay = self._manager.get_or_create(order.name, order.type)
            relay.set_instances(order.endpoints)
        return relay.endpoint

    def _tell_made(self, name: str, endpoint: str) -> None:
        if self._endpoints.get(name, "") == endpoint:
            return
        if endpoint:
            self._endpoints[name] = endpoint
        else:
            self._endpoints.pop(name, None)
        self._call(self._on_made, name, endpoint)

    def _call(self, function: Callable[..., None], *arguments: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(function, *arguments)
