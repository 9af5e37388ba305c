"""The broker's I/O: one ROUTER at the control endpoint, the clock, and the sessions' decisions carried out.

A peer that does not read what it is told would miss a change: at the first message that finds no room it is forgotten,
and has to introduce itself again. Nothing is queued for it beyond its socket's own high-water mark.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import time
import uuid
from dataclasses import asdict, dataclass
from typing import Any, Final

import zmq

from datacenter import clock, options, runtime, wire
from datacenter.broker.relay import RelayOptions
from datacenter.broker.relay_manager import RelayManager, RelayManagerOptions
from datacenter.broker.relays import Relays
from datacenter.broker.sessions import Answers, Sessions
from datacenter.checks import DAY_S, check, instance_of, seconds, whole
from datacenter.errors import BadOptionError, DatacenterError, ProtocolError, RegistryUnreachableError
from datacenter.listening import bind_listener
from datacenter.registry.location import MEMORY, parse
from datacenter.registry.shared import SharedRegistry
from datacenter.registry.state import Change, Registry, RegistryLimits
from datacenter.registry.zookeeper import ZooKeeperRegistry
from datacenter.sockets import admission
from datacenter.sockets.loop import LoopSocket
from datacenter.sockets.options import SocketOptions
from datacenter.version import __version__
from datacenter.wire import ServiceType

log = logging.getLogger("datacenter.broker")

TICK_S: Final = 0.25
#: where relays listen when the broker itself does not listen at a TCP address
LOOPBACK: Final = "tcp://127.0.0.1"


@dataclass(frozen=True)
class BrokerOptions:
    """Named limits of a broker. Seconds, bytes, counts. Raises BadOptionError for a value that cannot work."""

    heartbeat_s: float = options.HEARTBEAT_S
    missed_heartbeats: int = options.MISSED_HEARTBEATS
    lease_s: float = options.LEASE_S
    grace_leases: float = options.BROKER_GRACE_LEASES
    max_message_bytes: int = SocketOptions().max_message_bytes
    max_control_bytes: int = options.MAX_CONTROL_BYTES
    max_sessions: int = options.MAX_SESSIONS
    max_instances: int = options.MAX_INSTANCES
    control_high_water: int = options.CONTROL_HIGH_WATER
    zookeeper_session_s: float = options.ZOOKEEPER_SESSION_S
    #: None: as `max_message_bytes` says, else their defaults
    relays: RelayManagerOptions | None = None

    def __post_init__(self) -> None:
        check(
            self,
            lease_s=seconds(above=0, most=DAY_S),
            heartbeat_s=seconds(above=0, most=DAY_S),
            missed_heartbeats=whole(1),
            grace_leases=seconds(),
            max_message_bytes=whole(1),
            max_control_bytes=whole(1),
            max_sessions=whole(1),
            max_instances=whole(1),
            control_high_water=whole(1),
            zookeeper_session_s=seconds(above=0, most=DAY_S),
            relays=instance_of(RelayManagerOptions, or_none=True),
        )


class Broker:
    """The broker, in the running event loop. Use `async with`, or `start` and `close`.

    listen: its control endpoint. registry: `memory`, or zookeeper://HOST:PORT,…/path, which several brokers share
    (docs/zookeeper.md): until it was read, and whenever it is lost, sessions are sent away. Raises AddressInUseError,
    AddressError, InsecureAddressError at start; `async with` also RegistryUnreachableError.
    """

    def __init__(
        self, listen: str, *, registry: str = MEMORY, options: BrokerOptions | None = None, insecure: bool = False
    ) -> None:
        self.listen = listen
        self._location = parse(registry, insecure=insecure)
        self._zookeeper: ZooKeeperRegistry | None = None
        self.options = options or BrokerOptions()
        if self.options.heartbeat_s * self.options.missed_heartbeats > self.options.lease_s * 1.001:
            raise BadOptionError(
                f"{self.options.missed_heartbeats} heartbeats of {self.options.heartbeat_s} s are longer than a "
                f"lease of {self.options.lease_s} s",
                "An instance would lose its lease before its session is given up: shorten heartbeat_s.",
            )
        self.endpoint = ""
        self.id = uuid.uuid4().hex[:12]
        self._insecure = insecure
        self._closed = True
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._counts = {"received": 0, "malformed": 0, "undeliverable": 0}

    async def __aenter__(self) -> Broker:
        self.start()
        if not await self.ready(options.CONNECT_DEADLINE_S):
            await self.close()
            assert self._location is not None
            raise RegistryUnreachableError(
                f"no ZooKeeper answered at {self._location.hosts} within {options.CONNECT_DEADLINE_S:g} s",
                "Look at its servers: `echo srvr | nc HOST 2181`; without ZooKeeper: --registry memory.",
            )
        return self

    async def ready(self, deadline_s: float | None = None) -> bool:
        """Waits until the registry is known; False if it is not in time. One in memory always is."""
        return self._zookeeper is None or await self._zookeeper.wait_ready(deadline_s)

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def start(self) -> None:
        """Binds and answers from now on."""
        limits = self.options
        self._loop = asyncio.get_running_loop()
        self._runtime = runtime.acquire()
        try:
            owned = self._runtime.context.socket(
                zmq.ROUTER,
                owner="broker control",
                router_mandatory=True,
                send_high_water=limits.control_high_water,
                max_message_bytes=limits.max_control_bytes,
                linger_ms=options.GOODBYE_LINGER_MS,
            )
            try:
                self.endpoint = bind_listener(owned, self.listen, insecure=self._insecure)
                self._relays = Relays(self._new_relay_manager(), self._loop, self._relay_made, self._relay_refused)
            except BaseException:
                owned.close()
                raise
        except BaseException:
            runtime.release(self._runtime)
            raise
        try:
            registry = self._new_registry()
        except BaseException:
            owned.close()
            self._relays.close()
            runtime.release(self._runtime)
            raise
        welcome = wire.Welcome(
            wire.PROTOCOL,
            __version__,
            self.id,
            limits.heartbeat_s,
            limits.missed_heartbeats,
            limits.lease_s,
            limits.max_message_bytes,
            limits.max_instances,
        )
        self.sessions = Sessions(registry, welcome, max_sessions=limits.max_sessions)
        self._stream = LoopSocket(owned, self._loop, self._on_message, on_malformed=self._on_malformed)
        self._closed = False
        runtime.remember(self)
        self._tick()

    def _new_registry(self) -> Registry:
        limits = self.options
        bounds = RegistryLimits(max_instances=limits.max_instances)
        if self._location is None:
            return Registry(
                lease_s=limits.lease_s,
                grace_s=limits.lease_s * limits.grace_leases,
                started_at=clock.now(),
                first_epoch=time.time_ns() // 1000,
                limits=bounds,
            )
        shared = SharedRegistry(lease_s=limits.lease_s, broker_id=self.id, limits=bounds)
        shared.where = self._location.text
        self._zookeeper = ZooKeeperRegistry(
            self._location,
            shared,
            session_s=limits.zookeeper_session_s,
            on_news=self._registry_news,
            on_drain=self._registry_drain,
        )
        self._zookeeper.start(self._runtime.ledger)
        return shared

    def _registry_news(self, changes: list[Change]) -> None:
        self._send(self.sessions.news(clock.now(), changes))
        self._rearm()

    def _registry_drain(self, node: str) -> None:
        registry = self.sessions.registry
        owner = registry.behind(node) if isinstance(registry, SharedRegistry) else None
        if owner is not None and isinstance(owner[0], bytes):
            self._send([(owner[0], wire.DrainRequested(owner[1]))])

    async def close(self) -> None:
        """Says goodbye to every session, ends the relays, closes; its address is free then. Idempotent; bounded."""
        if self._closed or self._runtime.pid != os.getpid():
            return
        self._send(self.sessions.shutdown())
        self._shut()
        await runtime.apart(self._give_back)

    def close_now(self) -> None:
        """Closes from outside the loop, for the exit hook: in the loop's own thread while it runs. Bounded."""
        if not self._closed:
            runtime.run_in_loop(self._loop, self._shut)
            self._give_back()

    def statistics(self) -> dict[str, Any]:
        """Counts since the start, and what is known now. Raises ForkedError."""
        self._runtime.check_process()
        return {
            **self._counts,
            "sessions": len(self.sessions.processes),
            "refused": self.sessions.refused,
            "endpoint": self.endpoint,
            "admission": asdict(admission.of_process().statistics()),
            **self.sessions.registry.statistics(),
            **({} if self._zookeeper is None else {"zookeeper": self._zookeeper.statistics()}),
            "relays": [dataclasses.asdict(relay) for relay in self._relays.statistics().relays],
        }

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{self.endpoint}, {len(self.sessions.processes)} sessions"
        return f"<Broker {state}, pid {os.getpid()}>"

    def _shut(self) -> None:
        self._closed = True
        runtime.forget(self)
        if self._timer is not None:
            self._timer.cancel()
        if self._zookeeper is not None:
            self._zookeeper.stop()
        self._stream.close()

    def _give_back(self) -> None:
        if self._zookeeper is not None:
            self._zookeeper.give_back()
        self._relays.close()
        self._stream.owned.wait_unbound(runtime.patience_s() / 2)  # whoever comes next finds the address free
        runtime.release(self._runtime)

    # --- relays

    def _new_relay_manager(self) -> RelayManager:
        limits = self.options.relays or RelayManagerOptions(
            relay=RelayOptions(max_message_bytes=self.options.max_message_bytes)
        )
        scheme_and_host = self.endpoint.rpartition(":")[0] if self.endpoint.startswith("tcp://") else LOOPBACK
        return RelayManager(self._runtime.context, host=scheme_and_host, insecure=self._insecure, options=limits)

    def _relay_made(self, name: str, endpoint: str) -> None:
        if not self._closed:
            self._send(self.sessions.relay_made(name, endpoint))

    def _relay_refused(self, name: str, type_: ServiceType, error: DatacenterError) -> None:
        if not self._closed:
            self._send(self.sessions.relay_refused(name, type_, error))

    # --- messages and time

    def _on_malformed(self, _who: bytes) -> None:
        self._counts["malformed"] += 1

    def _on_message(self, who: bytes, frame: bytes) -> None:
        self._counts["received"] += 1
        try:
            message = wire.decode_to_broker(frame)
        except ProtocolError as error:
            self._counts["malformed"] += 1
            log.debug("a frame of %d bytes was refused: %s", len(frame), error)
            return
        self._send(self.sessions.received(clock.now(), who, message))
        self._rearm()

    def _send(self, answers: Answers) -> None:
        last: wire.FromBroker | None = None
        frame = b""
        for who, message in answers:
            if message is not last:  # a change goes to all who watch, as the same object
                last, frame = message, wire.encode(message)
            if self._stream.send_to(who, frame):
                continue
            self._counts["undeliverable"] += 1
            if not isinstance(message, wire.BrokerHeartbeat):
                self.sessions.gone(who)
        orders = self.sessions.relay_orders()
        if orders:
            self._relays.order(orders)
        registry = self.sessions.registry
        if self._zookeeper is not None and isinstance(registry, SharedRegistry):
            self._zookeeper.carry_out(registry.orders())

    def _tick(self) -> None:
        self._send(self.sessions.tick(clock.now()))
        self._timer = None
        self._rearm()

    def _rearm(self) -> None:
        """The next tick: soon for the heartbeats, and exactly when the next lease ends."""
        now = clock.now()
        deadline = self.sessions.registry.next_deadline()
        wait_s = TICK_S if deadline is None else max(0.0, min(TICK_S, deadline - now))
        at = self._loop.time() + wait_s
        if self._timer is None or at < self._timer_at - 0.001:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = at  # uvloop's handles do not tell
            self._timer = self._loop.call_at(at, self._tick)
