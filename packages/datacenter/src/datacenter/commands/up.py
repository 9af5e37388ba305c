"""`datacenter up`: the broker."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

import typer

from datacenter.checks import DAY_S, LARGEST
from datacenter.commands.common import INSECURE_OPTION, VERBOSE_OPTION, seconds
from datacenter.main_loop import run, set_up_logging

if TYPE_CHECKING:
    from datacenter.broker import Broker

#: so long the registry may take before a line says that it is waited for
PATIENCE_S = 2.0


def up(
    listen: str = typer.Option(
        "tcp://127.0.0.1:7700", "--listen", "-l", metavar="tcp://HOST:PORT", help="Where to listen."
    ),
    registry: str = typer.Option(
        "memory",
        metavar="memory|zookeeper://HOST:PORT,…/PATH",
        help="Where the registry is: in this process, or in ZooKeeper, shared by several brokers.",
    ),
    lease_s: float = typer.Option(
        3.0,
        min=0.3,
        max=DAY_S,
        callback=seconds,
        help="An instance that is silent for so long leaves the registry (seconds).",
    ),
    zookeeper_session_s: float = typer.Option(
        6.0,
        min=0.5,
        max=DAY_S,
        callback=seconds,
        help="ZooKeeper keeps what this broker registered for so long without hearing of it (seconds).",
    ),
    max_message_bytes: int = typer.Option(
        16 * 1024 * 1024, min=1024, max=LARGEST, help="Largest call or result that clients may send."
    ),
    max_sessions: int = typer.Option(10_000, min=1, max=LARGEST, help="Processes that may be connected at once."),
    insecure: bool = INSECURE_OPTION,
    verbose: int = VERBOSE_OPTION,
) -> None:
    """Start the broker: services register here, clients find them here.

    It prints its address when it is ready, and ends in order on SIGTERM or Ctrl-C.

    \b
    Examples:
      datacenter up
      datacenter up --listen tcp://127.0.0.1:7800 --lease-s 5
      datacenter up --registry zookeeper://127.0.0.1:2181,127.0.0.1:2182/datacenter
    """
    from datacenter.broker import Broker, BrokerOptions

    set_up_logging(verbose)
    options = BrokerOptions(
        heartbeat_s=lease_s / 3,
        lease_s=lease_s,
        max_message_bytes=max_message_bytes,
        max_sessions=max_sessions,
        zookeeper_session_s=zookeeper_session_s,
    )

    async def main(stop: asyncio.Event) -> None:
        broker = Broker(listen, registry=registry, options=options, insecure=insecure)
        broker.start()
        try:
            if await _ready(broker, registry, stop):
                print(f"broker ready at {broker.endpoint}", flush=True)
                await stop.wait()
            print("broker: ending", file=sys.stderr)
        finally:
            await broker.close()

    run(main)


async def _ready(broker: Broker, registry: str, stop: asyncio.Event) -> bool:
    """Waits until the registry is known, says so if that takes long; False if the broker is to end before."""
    stopped = asyncio.ensure_future(stop.wait())
    ready = asyncio.ensure_future(broker.ready())
    try:
        done, _ = await asyncio.wait({stopped, ready}, timeout=PATIENCE_S, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            print(f"broker: waiting for {registry} (is it up? `echo srvr | nc HOST 2181`)", file=sys.stderr)
            await asyncio.wait({stopped, ready}, return_when=asyncio.FIRST_COMPLETED)
        return not stopped.done()
    finally:
        stopped.cancel()
        ready.cancel()
