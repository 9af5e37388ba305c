"""`datacenter up`: the broker."""

from __future__ import annotations

import asyncio
import sys

import typer

from datacenter.checks import DAY_S, LARGEST
from datacenter.commands.common import INSECURE_OPTION, VERBOSE_OPTION, run, seconds, set_up_logging


def up(
    listen: str = typer.Option(
        "tcp://127.0.0.1:7700", "--listen", "-l", metavar="tcp://HOST:PORT", help="Where to listen."
    ),
    lease_s: float = typer.Option(
        3.0,
        min=0.3,
        max=DAY_S,
        callback=seconds,
        help="An instance that is silent for so long leaves the registry (seconds).",
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
    """
    from datacenter.broker import Broker, BrokerOptions

    set_up_logging(verbose)
    options = BrokerOptions(
        heartbeat_s=lease_s / 3, lease_s=lease_s, max_message_bytes=max_message_bytes, max_sessions=max_sessions
    )

    async def main(stop: asyncio.Event) -> None:
        async with Broker(listen, options=options, insecure=insecure) as broker:
            print(f"broker ready at {broker.endpoint}", flush=True)
            await stop.wait()
            print("broker: ending", file=sys.stderr)

    run(main)
