"""datacenter: broker, service and client as a user runs them, direct route.

The processes are those of `datacenter up` and `datacenter serve`. Run as a program, this file is the `datacenter`
command on a chosen event loop: `python -m bench.systems.datacenter_bus uvloop up --listen tcp://127.0.0.1:7700`.
"""
# mypy: disable-error-code="attr-defined, no-any-return"

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from bench.loops import Loop
from bench.messages import METHOD, SERVICE
from bench.systems import Command
from datacenter import AsyncClient

ENDPOINT = f"{SERVICE}.{METHOD}"


class BusClient:
    """A call by name: resolved once, then sent straight to the instance."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def call(self, payload: bytes) -> bytes:
        return await self._client.call(ENDPOINT, payload, returns=bytes)


class DatacenterBus:
    """Adaptor, see `bench.systems.System`."""

    def server_commands(self, port: int, loop: Loop) -> Sequence[Command]:
        broker = f"tcp://127.0.0.1:{port}"
        datacenter = [sys.executable, "-m", __name__, loop]
        return [
            [*datacenter, "up", "--listen", broker],
            [*datacenter, "serve", "bench.echo_service:echo", "--broker", broker],
        ]

    @asynccontextmanager
    async def connect(self, port: int) -> AsyncIterator[BusClient]:
        async with AsyncClient(f"tcp://127.0.0.1:{port}") as client:
            yield BusClient(client)


def main() -> None:
    if sys.argv.pop(1) == "uvloop":
        import uvloop

        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    from datacenter.commands import main as datacenter_command

    datacenter_command()


if __name__ == "__main__":
    main()
