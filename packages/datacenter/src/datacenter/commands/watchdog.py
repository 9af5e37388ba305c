"""`datacenter watchdog`: registers servers that know nothing of datacenter."""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import datetime

import typer

from datacenter.checks import DAY_S, LARGEST
from datacenter.commands.common import BROKER_OPTION, INSECURE_OPTION, VERBOSE_OPTION, seconds
from datacenter.gateway import health as defaults
from datacenter.gateway.health import HealthOptions, WatchdogOptions
from datacenter.main_loop import run, set_up_logging


def watchdog(
    name: str = typer.Option(..., "--name", "-n", help="The name to register them under."),
    address: list[str] = typer.Option(..., "--address", "-a", metavar="HOST:PORT", help="A server; may be repeated."),
    check: str = typer.Option(
        "tcp", "--check", "-c", help="tcp, redis, http, http:/PATH, or 'command:WORDS' (exit status 0 passes)."
    ),
    interval_s: float = typer.Option(
        defaults.INTERVAL_S, min=0.01, max=DAY_S, callback=seconds, help="Pause between two checks (seconds)."
    ),
    timeout_s: float = typer.Option(
        defaults.TIMEOUT_S,
        min=0.01,
        max=DAY_S,
        callback=seconds,
        help="A check that takes longer has failed (seconds).",
    ),
    quiet_after: int = typer.Option(
        defaults.QUIET_AFTER, min=1, max=LARGEST, help="Failed checks in a row until it is quiet."
    ),
    gone_after: int = typer.Option(
        defaults.GONE_AFTER, min=1, max=LARGEST, help="Failed checks in a row until it is gone."
    ),
    back_after: int = typer.Option(
        defaults.BACK_AFTER, min=1, max=LARGEST, help="Passed checks in a row until it is back."
    ),
    broker: str = BROKER_OPTION,
    insecure: bool = INSECURE_OPTION,
    as_json: bool = typer.Option(False, "--json", help="One JSON object for each change, a line each."),
    verbose: int = VERBOSE_OPTION,
) -> None:
    """Register servers that know nothing of datacenter (Redis, a web server, …) while they pass their checks.

    A server that fails is first quiet (it stays registered and gets no new connections), then gone; it is back when it
    passes again. Each change is one line on stdout. It ends on SIGTERM, Ctrl-C or `datacenter drain NAME`, and takes
    its servers out of the registry; the servers themselves are left alone. A command finds what it is to check in
    DATACENTER_HOST and DATACENTER_PORT.

    \b
    Examples:
      datacenter watchdog --name redis --address 127.0.0.1:6379 --check redis
      datacenter watchdog -n web -a 127.0.0.1:8080 -a 127.0.0.1:8081 -c http:/health
      datacenter watchdog -n db -a 127.0.0.1:5432 -c 'command:pg_isready -q -p 5432'
    """
    from datacenter.gateway.watchdog import Watchdog

    set_up_logging(verbose)
    health = HealthOptions(quiet_after=quiet_after, gone_after=gone_after, back_after=back_after)
    options = WatchdogOptions(interval_s=interval_s, timeout_s=timeout_s, health=health)

    def tell(endpoint: str, now: defaults.Health, why: str) -> None:
        if as_json:
            at = datetime.now().astimezone().isoformat(timespec="milliseconds")
            row = {"schema": 1, "at": at, "name": name, "endpoint": endpoint, "health": now, "why": why}
            print(json.dumps(row), flush=True)
        else:
            print(f"{name} {endpoint} {now}" + (f": {why}" if why else ""), flush=True)

    async def main(stop: asyncio.Event) -> None:
        watchdog = Watchdog(
            name, address, broker=broker, check=check, insecure=insecure, options=options, on_health=tell
        )
        print(f"watching {', '.join(watchdog.health())}", file=sys.stderr, flush=True)
        await watchdog.run(stop)

    run(main)
