"""`datacenter serve module:service`: runs services of a Python module."""

from __future__ import annotations

import asyncio
import sys

import typer

from datacenter.checks import MAX_SECONDS
from datacenter.commands.common import BROKER_OPTION, INSECURE_OPTION, VERBOSE_OPTION, WATCHERS_REGISTRY_OPTION, seconds
from datacenter.dispatcher import MAX_THREADS, ServiceOptions
from datacenter.errors import BadOptionError, BrokerUnreachableError
from datacenter.importing import load
from datacenter.main_loop import run, set_up_logging
from datacenter.options import DRAIN_S, MAX_WORKERS, THREADS
from datacenter.server import Server


def serve(
    targets: list[str] = typer.Argument(
        metavar="MODULE:SERVICE...", help="Service objects, for instance greeter:greeter."
    ),
    broker: str = BROKER_OPTION,
    registry: str = WATCHERS_REGISTRY_OPTION,
    listen: str = typer.Option(
        "tcp://127.0.0.1:0", "--listen", "-l", metavar="tcp://HOST:PORT", help="Port 0: a free one."
    ),
    advertise: str = typer.Option(
        "", metavar="tcp://HOST:PORT", help="What clients are told, if it is another address."
    ),
    insecure: bool = INSECURE_OPTION,
    workers: int = typer.Option(
        0, "--workers", "-w", min=0, max=MAX_WORKERS, help="So many processes, each at a port of its own (0: this one)."
    ),
    threads: int = typer.Option(THREADS, min=1, max=MAX_THREADS, help="Threads for methods that are not async."),
    drain_s: float = typer.Option(
        DRAIN_S,
        min=0,
        max=MAX_SECONDS,
        callback=seconds,
        help="How long running calls may take to finish at the end (seconds).",
    ),
    verbose: int = VERBOSE_OPTION,
) -> None:
    """Serve one or several services, until SIGTERM, Ctrl-C or `datacenter drain`.

    Then it leaves the registry, finishes what runs (--drain-s), tells late calls to go elsewhere, and ends; a second
    signal ends it at once. It waits for a broker that is not there yet, and registers again whenever one comes back.

    With --workers, that many processes serve, and this one keeps them: one that crashes is replaced, SIGHUP replaces
    all by the code as it is then without losing a call, and all end together (docs/prefork.md).

    \b
    Examples:
      datacenter serve greeter:greeter
      datacenter serve shop:orders shop:stock --broker tcp://127.0.0.1:7800
      datacenter serve shop:orders --workers 4
    """
    set_up_logging(verbose)
    if workers:
        from datacenter.prefork.serving import Settings, keep_workers

        settings = Settings(broker, targets, listen, advertise, insecure, threads, drain_s, verbose, registry)
        keep_workers(settings, workers)
        return
    if registry:
        raise BadOptionError(
            "--registry is for a family of workers, whose watcher connects to it",
            "Add --workers N; or start a broker, `datacenter up --registry …`, and name that: --broker.",
        )
    services = [load(target) for target in targets]
    options = ServiceOptions(threads=threads, drain_s=drain_s)
    server = Server(services, broker=broker, listen=listen, advertise=advertise, insecure=insecure, options=options)

    async def main(stop: asyncio.Event) -> None:
        server.start()
        patience_s: float | None = None
        try:
            await _until_registered(server, stop)
            await _until_stopped_or_drained(server, stop)
        except asyncio.CancelledError:
            patience_s = 0.0  # asked to end a second time
        finally:
            await server.close(drain_s=patience_s)

    run(main)


async def _until_stopped_or_drained(server: Server, stop: asyncio.Event) -> None:
    ends = [asyncio.ensure_future(stop.wait()), asyncio.ensure_future(server.drained())]
    try:
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for end in ends:
            end.cancel()


async def _until_registered(server: Server, stop: asyncio.Event) -> None:
    names = ", ".join(server.services)
    registered = asyncio.ensure_future(server.registered())
    stopping = asyncio.ensure_future(stop.wait())
    await asyncio.wait({registered, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not registered.done():
        registered.cancel()
        return
    try:
        registered.result()
        print(f"serving {names} at {server.endpoint}", flush=True)
    except BrokerUnreachableError as error:
        print(f"serving {names} at {server.endpoint}", flush=True)
        print(f"datacenter: {error.message}; {names} registers as soon as one does", file=sys.stderr)
