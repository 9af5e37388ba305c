"""`datacenter serve module:service`: runs services of a Python module."""

from __future__ import annotations

import asyncio
import importlib
import os
import sys

import typer

from datacenter.checks import MAX_SECONDS
from datacenter.commands.common import BROKER_OPTION, INSECURE_OPTION, VERBOSE_OPTION, run, seconds, set_up_logging
from datacenter.dispatcher import MAX_THREADS, ServiceOptions
from datacenter.errors import BrokerUnreachableError, NotServableError
from datacenter.options import DRAIN_S, THREADS
from datacenter.server import Server
from datacenter.service import Service


def serve(
    targets: list[str] = typer.Argument(
        metavar="MODULE:SERVICE...", help="Service objects, for instance greeter:greeter."
    ),
    broker: str = BROKER_OPTION,
    listen: str = typer.Option(
        "tcp://127.0.0.1:0", "--listen", "-l", metavar="tcp://HOST:PORT", help="Port 0: a free one."
    ),
    advertise: str = typer.Option(
        "", metavar="tcp://HOST:PORT", help="What clients are told, if it is another address."
    ),
    insecure: bool = INSECURE_OPTION,
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
    """Serve one or several services in this process, until SIGTERM, Ctrl-C or `datacenter drain`.

    Then it leaves the registry, finishes what runs (--drain-s), tells late calls to go elsewhere, and ends; a second
    signal ends it at once. It waits for a broker that is not there yet, and registers again whenever one comes back.

    \b
    Examples:
      datacenter serve greeter:greeter
      datacenter serve shop:orders shop:stock --broker tcp://127.0.0.1:7800
    """
    set_up_logging(verbose)
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


def load(target: str) -> Service:
    """'module:name' -> the Service. Raises NotServableError, saying which part was not found."""
    module_name, colon, name = target.partition(":")
    if not colon or not module_name or not name:
        raise NotServableError(
            f"{target!r} does not name a service", "Write MODULE:SERVICE, for instance greeter:greeter."
        )
    sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise NotServableError(
            f"there is no module {error.name!r}",
            f"Run it where {module_name.replace('.', '/')}.py can be imported, or set PYTHONPATH.",
        ) from None
    except (ImportError, SyntaxError, TypeError, ValueError) as error:
        raise NotServableError(
            f"{module_name} cannot be imported: {type(error).__name__}: {error}",
            f"See where: python -c 'import {module_name}'.",
        ) from None
    service = getattr(module, name, None)
    if isinstance(service, Service):
        return service
    found = [key for key, value in vars(module).items() if isinstance(value, Service)]
    hint = (
        f"It has: {', '.join(f'{module_name}:{key}' for key in found)}."
        if found
        else "Make one: greeter = Service('greeter')."
    )
    raise NotServableError(f"{module_name} has no Service named {name!r}", hint)
