"""The workers of `datacenter serve MODULE:SERVICE --workers N`: each a server of its own, at a port of its own.

`prepare` imports the services, in the fork server; `main` is a worker's life.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import Raw, Struct

from datacenter import runtime
from datacenter.dispatcher import ServiceOptions
from datacenter.errors import AddressError, DatacenterError, InsecureAddressError, NotServableError
from datacenter.importing import load
from datacenter.listening import checked_advertise
from datacenter.main_loop import run, set_up_logging
from datacenter.prefork import messages
from datacenter.prefork.fork_server import process_name
from datacenter.prefork.supervisor import Plan, Supervisor
from datacenter.prefork.worker import Worker
from datacenter.registry.location import of_family
from datacenter.server import Server
from datacenter.service import Service
from datacenter.sockets.addresses import each_for_connect, for_bind, for_connect

log = logging.getLogger("datacenter.service")
_COUNTS = ("calls", "errors", "refused", "malformed", "dropped_replies")
_GAUGES = ("in_flight", "outbox")

_services: list[Service] = []


class _SaidError(Exception):
    """A worker cannot begin, and has told the supervisor why."""


class Settings(Struct):
    """A family's arguments, as the command line gave them. `broker`, `insecure`, `registry` are the watcher's, too."""

    broker: str
    targets: list[str]
    listen: str
    advertise: str = ""
    insecure: bool = False
    threads: int = 16
    drain_s: float = 0.5
    verbose: int = 0
    registry: str = ""


def check_addresses(settings: Settings) -> None:
    """What would only be noticed in each worker. Raises AddressError, InsecureAddressError."""
    if settings.listen.startswith("tcp://") and settings.listen.rpartition(":")[2] not in ("0", "*"):
        raise AddressError(
            f"several workers cannot listen at {settings.listen}",
            "Each needs a port of its own, also beside the one that it replaces: --listen tcp://HOST:0.",
        )
    if settings.listen.startswith("ipc://"):
        raise AddressError(
            f"several workers cannot listen at {settings.listen}",
            "Each needs an address of its own, and a UNIX socket has no free number to take: --listen tcp://127.0.0.1:0.",
        )
    host, _, port = settings.advertise.rpartition(":")
    if settings.advertise:
        if port not in ("0", "*"):
            raise AddressError(
                f"several workers cannot be told to clients as {settings.advertise}",
                "Each listens at a port of its own, which is told with this host: --advertise tcp://HOST:0.",
            )
        checked_advertise(f"{host}:1")
    if settings.registry:
        of_family(settings.registry, insecure=settings.insecure)
    brokers = [] if settings.registry else each_for_connect(settings.broker).split(",")
    wanted = [*((for_connect(broker), "connect to") for broker in brokers), (for_bind(settings.listen), "listen at")]
    for address, verb in wanted:
        if not address.local and not settings.insecure:
            raise InsecureAddressError(
                f"workers may not {verb} {address.text}: other machines can reach it, and no key protects it",
                "Use 127.0.0.1, or say --insecure where the network is trusted.",
            )


def keep_workers(settings: Settings, workers: int) -> None:
    """Keeps `workers` processes that serve, until told to end: the main thread of the command.

    Raises NotServableError, AddressError, InsecureAddressError.
    """
    check_addresses(settings)
    names = ", ".join(target.rpartition(":")[2] for target in settings.targets)

    def ready(endpoints: list[str]) -> None:
        many = f"{workers} workers" if workers > 1 else "1 worker"
        print(f"serving {names} with {many} at {','.join(endpoints)}", flush=True)

    plan = Plan(
        prepare="datacenter.prefork.serving:prepare",
        worker="datacenter.prefork.serving:main",
        watcher="datacenter.prefork.watcher:main",
        arguments=settings,
        patience_s=settings.drain_s,
    )

    async def main(stop: asyncio.Event) -> None:
        supervisor = Supervisor(plan, places=workers, on_ready=ready)
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, supervisor.reload)
        await supervisor.run(stop)

    run(main)


def prepare(arguments: Raw) -> None:
    """In the fork server: imports what will be served. Raises NotServableError."""
    settings = msgspec.msgpack.decode(arguments, type=Settings)
    set_up_logging(settings.verbose)
    _services[:] = [load(target) for target in settings.targets]
    leased = [service.name for service in _services if service.leased]
    if leased:
        raise NotServableError(
            f"{leased[0]} is leased, and a worker cannot know how long its lease holds",
            "Serve it by processes with sessions of their own: without --workers.",
        )


def main(end: socket.socket, arguments: Raw) -> None:
    """The entry of a worker."""
    _name_log()
    settings = msgspec.msgpack.decode(arguments, type=Settings)
    try:
        run(functools.partial(_main, end, settings))
    except _SaidError:
        sys.exit(1)


async def _main(end: socket.socket, settings: Settings, stop: asyncio.Event) -> None:
    process = runtime.acquire()
    try:
        await _serve(process, end, settings, stop)
    finally:
        runtime.release(process)


async def _serve(process: runtime.Runtime, end: socket.socket, settings: Settings, stop: asyncio.Event) -> None:
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None

    def to_end(urgent: bool) -> None:  # in the reactor
        loop.call_soon_threadsafe(stop.set)
        if urgent:
            loop.call_soon_threadsafe(task.cancel)

    async def open_line() -> Worker:
        return Worker(
            end,
            ledger=process.ledger,
            on_end=to_end,
            statistics=lambda: _counted(server),
            patience_s=settings.drain_s,
        )

    server: Server | None = None
    worker = process.reactor.run(open_line())
    try:
        with _saying_why(worker):
            server = Server(
                _services,
                registrar=worker.registrar,
                family=functools.partial(_family, process, worker),
                listen=settings.listen,
                advertise_host=settings.advertise.rpartition(":")[0],
                insecure=settings.insecure,
                options=ServiceOptions(threads=settings.threads, drain_s=settings.drain_s),
            )
        patience_s: float | None = None
        try:
            with _saying_why(worker):
                server.start()
            worker.serving(server.endpoint)
            await _until_over(server, stop, worker)
        except asyncio.CancelledError:
            patience_s = 0.0
        finally:
            await server.close(drain_s=patience_s)
    finally:
        process.reactor.run(worker.close())


@contextlib.contextmanager
def _saying_why(worker: Worker) -> Iterator[None]:
    """Tells the supervisor why this worker cannot begin: it says so once for all."""
    try:
        yield
    except DatacenterError as error:
        worker.say(messages.NotPrepared(error.code, error.message, error.hint))
        raise _SaidError from error


async def _until_over(server: Server, stop: asyncio.Event, worker: Worker) -> None:
    """Until it is told to end, or was drained."""
    registered = asyncio.ensure_future(server.registered())
    registered.add_done_callback(lambda future: future.cancelled() or future.exception())  # the supervisor says it
    drained = asyncio.ensure_future(server.drained())
    stopped = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({drained, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if drained.done():
            worker.say(messages.Retired())
    finally:
        for waiting in (registered, drained, stopped):
            waiting.cancel()


async def _family(process: runtime.Runtime, worker: Worker) -> dict[str, Any]:
    """Which worker this is, and how the family does."""
    told = asyncio.run_coroutine_threadsafe(worker.family(), process.reactor.loop)
    return {"name": process_name(), "family": await asyncio.wrap_future(told)}


def _counted(server: Server | None) -> messages.Statistics | None:
    """In the reactor, while the server runs in its own thread: whole numbers, each read at once."""
    counts = {} if server is None else server.counts()
    if not counts:
        return None
    return messages.Statistics({name: counts[name] for name in _COUNTS}, {name: counts[name] for name in _GAUGES})


def _name_log() -> None:
    """Says in each line which process it is."""
    name = process_name()
    for handler in logging.getLogger().handlers:
        handler.setFormatter(
            logging.Formatter(f"%(asctime)s %(levelname)s {name}[{os.getpid()}] %(name)s: %(message)s")
        )
