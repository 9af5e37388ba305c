"""A registry behind the books of one broker, and parties who talk to it as sessions do; no socket of datacenter's."""

from __future__ import annotations

import asyncio
import functools
import time
from collections import defaultdict
from collections.abc import Callable
from typing import TypeVar

import pytest

from datacenter import options, wire
from datacenter.broker.sessions import Answers, Sessions
from datacenter.registry.location import parse
from datacenter.registry.shared import SharedRegistry
from datacenter.registry.state import Registry, RegistryLimits
from datacenter.registry.zookeeper import ZooKeeperRegistry
from datacenter.sockets.ledger import Ledger
from datacenter.wire import Instance, Resolution, ServiceType

LEASE_S = 0.6
DEADLINE_S = 20.0
LIMITS = RegistryLimits(max_instances=4)
M = TypeVar("M", bound=wire.FromBroker)


class Books:
    """One broker's sessions and its registry, without sockets: what is answered is kept for each party."""

    def __init__(self, name: str, location: str) -> None:
        self.told: dict[bytes, list[wire.FromBroker]] = defaultdict(list)
        self._tree: ZooKeeperRegistry | None = None
        self._ledger = Ledger.open()
        place = parse(location)
        registry: Registry
        if place is None:
            registry = Registry(
                lease_s=LEASE_S, grace_s=0.0, started_at=time.monotonic(), first_epoch=1000, limits=LIMITS
            )
        else:
            registry = SharedRegistry(lease_s=LEASE_S, broker_id=name, limits=LIMITS)
            self._tree = ZooKeeperRegistry(place, registry, session_s=2.0, on_news=self._news, on_drain=self._drain)
        welcome = wire.Welcome(wire.PROTOCOL, "0", name, LEASE_S / 3, 3, LEASE_S, 1024, LIMITS.max_instances)
        self.sessions = Sessions(registry, welcome, max_sessions=10)
        self._ticking = asyncio.ensure_future(self._tick())

    async def ready(self) -> None:
        if self._tree is not None:
            self._tree.start(self._ledger)
            assert await self._tree.wait_ready(options.CONNECT_DEADLINE_S)

    async def close(self) -> None:
        self._ticking.cancel()
        if self._tree is not None:
            self._tree.stop()
            await asyncio.to_thread(self._tree.give_back)
        self._ledger.close()

    def say(self, who: bytes, message: wire.ToBroker) -> None:
        self._take(self.sessions.received(time.monotonic(), who, message))

    def _news(self, changes: list) -> None:  # type: ignore[type-arg]
        self._take(self.sessions.news(time.monotonic(), changes))

    def _drain(self, node: str) -> None:
        registry = self.sessions.registry
        assert isinstance(registry, SharedRegistry)
        found = registry.behind(node)
        if found is not None and isinstance(found[0], bytes):
            self._take([(found[0], wire.DrainRequested(found[1]))])

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(0.02)
            self._take(self.sessions.tick(time.monotonic()))

    def _take(self, answers: Answers) -> None:
        for who, message in answers:
            self.told[who].append(message)
        registry = self.sessions.registry
        if self._tree is not None and isinstance(registry, SharedRegistry):
            self._tree.carry_out(registry.orders())


class Party:
    """A process with a session at one broker. It renews its leases until it is `silent`."""

    def __init__(self, books: Books, name: str) -> None:
        self.who = name.encode()
        self._books = books
        self._request = 0
        books.say(self.who, wire.Hello(wire.PROTOCOL, "0", 1, "here", name))
        self._beating = asyncio.ensure_future(self._beat())

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(LEASE_S / 6)
            self._books.say(self.who, wire.Heartbeat())

    def silent(self) -> None:
        self._beating.cancel()

    def say(self, message: wire.ToBroker) -> None:
        self._books.say(self.who, message)

    async def hears(self, kind: type[M], fits: Callable[[M], object] = lambda _: True) -> M:
        """The first message of this kind for which `fits` is true, of those that were not asked for yet."""
        end = time.monotonic() + DEADLINE_S
        while True:
            told = self._books.told[self.who]
            for index, message in enumerate(told):
                if isinstance(message, kind) and fits(message):
                    del told[: index + 1]
                    return message
            if time.monotonic() > end:
                pytest.fail(f"{self.who!r} did not hear a {kind.__name__}, but {told}")
            await asyncio.sleep(0.005)

    def heard(self) -> list[wire.FromBroker]:
        """Everything that it was told and not asked for."""
        return self._books.told[self.who]

    async def asks(self, build: Callable[[int], wire.ToBroker], kind: type[M]) -> M:
        self._request += 1
        number = self._request
        self.say(build(number))
        return await self.hears(kind, lambda message: getattr(message, "request", 0) == number)

    async def registers(self, id_: str, name: str = "a", type_: ServiceType = "rpc") -> int:
        """Its epoch."""
        instance = Instance(id_, "tcp://127.0.0.1:10001", host="here", metadata={"zone": "é"})
        build = functools.partial(_register, name=name, type_=type_, instance=instance)
        return (await self.asks(build, wire.Registered)).epoch

    async def is_refused(self, id_: str, name: str = "a", type_: ServiceType = "rpc") -> str:
        """With which code."""
        build = functools.partial(_register, name=name, type_=type_, instance=Instance(id_, "tcp://127.0.0.1:10001"))
        return (await self.asks(build, wire.Refused)).code

    async def unregisters(self, id_: str) -> None:
        await self.asks(lambda number: wire.Unregister(number, id_), wire.Unregistered)

    async def lists(self) -> list[str]:
        """The names that are served."""
        await asyncio.sleep(0.005)
        listing = await self.asks(wire.ListServices, wire.Listing)
        return [each.name for each in listing.services if each.instances]

    async def watches(self, name: str, type_: ServiceType = "rpc") -> Resolution:
        """What it stands for, once that is known."""
        found = (await self.asks(lambda number: wire.Resolve(number, name, type_), wire.Resolved)).resolution
        while found.state == "settling":
            found = (await self.hears(wire.Changed, lambda change: change.resolution.name == name)).resolution
        return found

    async def is_told(self, name: str, *ids: str) -> Resolution:
        """Waits until it is told that exactly these instances serve `name`."""
        return (
            await self.hears(
                wire.Changed,
                lambda change: (
                    change.resolution.name == name
                    and sorted(one.id for one in change.resolution.instances) == sorted(ids)
                ),
            )
        ).resolution


def _register(number: int, *, name: str, type_: ServiceType, instance: Instance) -> wire.Register:
    return wire.Register(number, name, type_, instance)
