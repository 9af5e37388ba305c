"""Registers servers that know nothing of datacenter, for as long as they pass their checks.

A watchdog has one session and an instance for each address. While an address is healthy its lease is renewed, with the
watchdog's heartbeats; when it fails, the registry first says that it is quiet (`health` in the instance's metadata),
then it is taken out; when it passes again, it comes back, as the same instance. If the watchdog itself dies, all its
instances leave when their leases end.

Runs in the event loop that `run` is awaited in; no use from another thread, none after a fork.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import socket
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from datacenter import runtime, wire
from datacenter.errors import AddressError, BadOptionError, DatacenterError
from datacenter.gateway.health import Health, HealthWatch, WatchdogOptions
from datacenter.gateway.probes import Probe, ProbeFailedError, probe_named
from datacenter.options import CLOSE_DEADLINE_S
from datacenter.session import Session, SessionOptions
from datacenter.sockets.addresses import for_connect
from datacenter.wire import Instance

log = logging.getLogger("datacenter.watchdog")


@dataclass
class _Server:
    endpoint: str
    host: str
    port: int
    instance_id: str
    watch: HealthWatch
    told: bool = False  # why it never passed


async def _set(event: asyncio.Event) -> None:
    await event.wait()


#: (endpoint, its health, why: "" or what the last check said)
OnHealth = Callable[[str, Health, str], None]


class Watchdog:
    """Watches the servers at `addresses` (HOST:PORT, or tcp://HOST:PORT) and registers the healthy ones as `name`.

    check: see `probe_named`. on_health is called in the loop at each change. Raises AddressError, BadOptionError,
    NotServableError for what cannot work. Host names are resolved here, which may block.
    """

    def __init__(
        self,
        name: str,
        addresses: Sequence[str],
        *,
        broker: str,
        check: str = "tcp",
        insecure: bool = False,
        options: WatchdogOptions | None = None,
        on_health: OnHealth = lambda endpoint, health, why: None,
    ) -> None:
        self.name = wire.check_name("service", name)
        self.options = options or WatchdogOptions()
        self._check = check
        self._probe: Probe = probe_named(check)
        self._broker = broker
        self._insecure = insecure
        self._on_health = on_health
        self._servers = [self._server(address) for address in addresses]
        endpoints = [server.endpoint for server in self._servers]
        if not endpoints or len(set(endpoints)) < len(endpoints):
            what = "one address is given twice" if endpoints else "no address was given"
            raise BadOptionError(what, "Write --address HOST:PORT, once for each server.")
        self._drained: set[str] = set()
        self._all_drained = asyncio.Event()

    def health(self) -> dict[str, Health]:
        """endpoint -> its health now."""
        return {server.endpoint: server.watch.health for server in self._servers}

    async def run(self, stop: asyncio.Event) -> None:
        """Watches until `stop` is set or `datacenter drain` has taken out all its instances; then takes out the rest.

        Waits for a broker that is not there yet. Raises WrongTypeError if the name is registered as something else.
        """
        loop = asyncio.get_running_loop()
        process = runtime.acquire()
        try:
            session = process.session(self._broker, SessionOptions(insecure=self._insecure))
            watching = [loop.create_task(self._watch(session, server)) for server in self._servers]
            tasks = [*watching, loop.create_task(_set(stop)), loop.create_task(_set(self._all_drained))]
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in watching:
                    if task.done():
                        task.result()  # they only end by an error
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)
                await self._leave(session)
                await runtime.apart(functools.partial(process.release_session, session))
        finally:
            await runtime.apart(functools.partial(runtime.release, process))

    async def _watch(self, session: Session, server: _Server) -> None:
        """Checks one server for ever. Raises what the broker says against its registration."""
        registering: asyncio.Future[int] | None = None
        while server.instance_id not in self._drained:
            why = ""
            try:
                await asyncio.wait_for(self._probe(server.host, server.port), self.options.timeout_s)
                health = server.watch.passed()
            except (ProbeFailedError, asyncio.TimeoutError) as error:
                why = str(error) or f"no answer within {self.options.timeout_s:g} s"
                health = server.watch.failed()
                log.info("%s at %s failed its check: %s", self.name, server.endpoint, why)
                if server.watch.health == "absent" and not server.told:
                    server.told = True
                    log.warning("%s at %s has not passed yet: %s", self.name, server.endpoint, why)
            if health is not None and server.instance_id not in self._drained:
                self._on_health(server.endpoint, health, why)
                registering = self._tell(session, server, health)
            if registering is not None and registering.done():
                registering.result()
            await asyncio.sleep(self.options.interval_s)
        await asyncio.Event().wait()  # drained: it is not looked at any more

    def _tell(self, session: Session, server: _Server, health: Health) -> asyncio.Future[int] | None:
        if health == "gone":
            asyncio.wrap_future(session.unregister(server.instance_id))
            return None
        instance = Instance(
            id=server.instance_id,
            endpoint=server.endpoint,
            host=socket.gethostname(),
            metadata={"health": health, "check": self._check},
        )
        loop = asyncio.get_running_loop()

        def drain() -> None:  # in the reactor
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._drain, session, server)

        return asyncio.wrap_future(session.register(self.name, "foreign", instance, drain))

    def _drain(self, session: Session, server: _Server) -> None:
        if server.instance_id in self._drained:
            return
        self._drained.add(server.instance_id)
        self._on_health(server.endpoint, "gone", "drained")
        gone = asyncio.wrap_future(session.unregister(server.instance_id))
        if len(self._drained) == len(self._servers):
            gone.add_done_callback(lambda _: self._all_drained.set())

    async def _leave(self, session: Session) -> None:
        """Takes out what is registered. Bounded: without a broker there is nobody to tell."""
        registered = [server for server in self._servers if server.watch.health in ("healthy", "quiet")]
        leaving = [asyncio.wrap_future(session.unregister(server.instance_id)) for server in registered]
        if not leaving:
            return
        patience_s = CLOSE_DEADLINE_S / 4 if session.state == "connected" else 0.0
        done, unanswered = await asyncio.wait(leaving, timeout=patience_s)
        for future in unanswered:
            future.cancel()
        for future in done:
            if not future.cancelled() and isinstance(error := future.exception(), DatacenterError):
                log.info("the broker was not told that %s ends: %s", self.name, error)

    def _server(self, address: str) -> _Server:
        text = address if "://" in address else f"tcp://{address}"
        endpoint = for_connect(text).text
        if not endpoint.startswith("tcp://"):
            raise AddressError(f"{address!r} is no TCP address", "Write --address HOST:PORT.")
        host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
        instance_id = f"{self.name}-{uuid.uuid4().hex[:12]}"
        return _Server(endpoint, host.strip("[]"), int(port), instance_id, HealthWatch(self.options.health))
