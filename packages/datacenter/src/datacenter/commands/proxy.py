"""`datacenter proxy`: a TCP gateway of several processes in front of registered servers."""

from __future__ import annotations

import asyncio
import signal
import sys
from dataclasses import asdict
from enum import Enum
from typing import TYPE_CHECKING

import typer

from datacenter.checks import DAY_S, LARGEST
from datacenter.commands.common import BROKER_OPTION, INSECURE_OPTION, VERBOSE_OPTION, WATCHERS_REGISTRY_OPTION, seconds
from datacenter.gateway import options as defaults
from datacenter.main_loop import run, set_up_logging
from datacenter.options import MAX_WORKERS
from datacenter.wire import check_name

if TYPE_CHECKING:
    from datacenter.gateway.workers import Settings


class BalanceChoice(str, Enum):
    """How a client, or a key, gets its server."""

    least_connections = "least-connections"
    redis_keys = "redis-keys"


def proxy(
    service: str = typer.Option(..., "--service", "-s", help="The name that the servers are registered under."),
    listen: str = typer.Option(..., "--listen", "-l", metavar="HOST:PORT", help="Where clients connect; port 0: any."),
    workers: int = typer.Option(2, "--workers", "-w", min=1, max=MAX_WORKERS, help="Processes that carry the traffic."),
    balance: BalanceChoice = typer.Option(
        BalanceChoice.least_connections,
        help="least-connections: any TCP protocol, each client to one server; redis-keys: each key to its server.",
    ),
    drain_s: float = typer.Option(
        defaults.GATEWAY_DRAIN_S,
        min=0,
        max=DAY_S,
        callback=seconds,
        help="How long connections may go on to a server that has left, and all of them at the end (seconds).",
    ),
    connect_s: float = typer.Option(
        defaults.CONNECT_S, min=0.01, max=DAY_S, callback=seconds, help="Patience with a server that does not answer."
    ),
    request_s: float = typer.Option(
        defaults.REQUEST_S, min=0.01, max=DAY_S, callback=seconds, help="redis-keys: patience with a silent server."
    ),
    return_s: float = typer.Option(
        defaults.RETURN_S,
        min=0,
        max=DAY_S,
        callback=seconds,
        help="redis-keys: how long requests for a server that has just gone wait for its return (seconds).",
    ),
    max_connections: int = typer.Option(
        defaults.MAX_CONNECTIONS, min=0, max=LARGEST, help="Clients of one worker; 0: as its descriptors allow."
    ),
    broker: str = BROKER_OPTION,
    registry: str = WATCHERS_REGISTRY_OPTION,
    insecure: bool = INSECURE_OPTION,
    verbose: int = VERBOSE_OPTION,
) -> None:
    """Pass TCP connections on to the healthy servers that are registered under a name (see `datacenter watchdog`).

    One process watches the registry and tells the workers, which hold nothing but their clients' connections. A server
    that becomes quiet gets no new connections; one that leaves keeps those it has for --drain-s. A worker that crashes
    is replaced; all end together, on SIGTERM or Ctrl-C.

    With --balance redis-keys it speaks Redis (RESP 2): each key belongs to one server by a consistent hash, several
    clients share a worker's one connection to it. When a server dies, requests in flight get an error, and those that
    come while it restarts wait for it (--return-s).

    \b
    Examples:
      datacenter proxy --service redis --listen 127.0.0.1:6400
      datacenter proxy --service redis --listen 127.0.0.1:6400 --workers 4 --balance redis-keys
      datacenter proxy -s web -l 127.0.0.1:8000 --drain-s 30
      datacenter proxy -s web -l 127.0.0.1:8000 --registry zookeeper://127.0.0.1:2181/datacenter
    """
    from datacenter.gateway.front import check_installed
    from datacenter.gateway.workers import Settings, reserve

    set_up_logging(verbose)
    check_name("service", service)
    check_installed(balance.value)
    options = defaults.GatewayOptions(
        drain_s=drain_s,
        connect_s=connect_s,
        request_s=request_s,
        return_s=return_s,
        max_connections=max_connections,
    )
    with reserve(listen, broker=broker, insecure=insecure, registry=registry) as reserved:
        host, port = reserved.getsockname()[:2]
        settings = Settings(broker, service, host, port, balance.value, asdict(options), insecure, verbose, registry)
        _keep(settings, workers)


def _keep(settings: Settings, workers: int) -> None:
    """The supervisor of a gateway's processes, until it is told to end."""
    from datacenter.prefork.supervisor import Plan, Supervisor

    plan = Plan(
        prepare="datacenter.gateway.workers:prepare",
        worker="datacenter.gateway.workers:main",
        watcher="datacenter.prefork.watcher:main",
        arguments=settings,
        patience_s=settings.options["drain_s"],
    )

    def ready(endpoints: list[str]) -> None:
        print(f"proxy for {settings.service} with {workers} workers at {endpoints[0]}", flush=True)

    async def main(stop: asyncio.Event) -> None:
        supervisor = Supervisor(plan, places=workers, on_ready=ready)
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, supervisor.reload)
        where = settings.registry or settings.broker
        print(f"proxy: waiting for what the registry at {where} says of {settings.service}", file=sys.stderr)
        await supervisor.run(stop)

    run(main)
