"""datacenter: broker, service and client as a user runs them, on the direct route and through the broker's relay.

The servers are the commands `datacenter up` and `datacenter serve`, which take uvloop where it is installed. For the
rows on asyncio this file, run as a program, is the same command in a process that has no uvloop.
"""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from bench.loops import Loop
from bench.messages import METHOD, SERVICE
from bench.systems import Command
from datacenter import AsyncClient, ClientOptions
from datacenter.client.route import RouteChoice

ENDPOINT = f"{SERVICE}.{METHOD}"


class BusClient:
    """A call by name: resolved once, then sent to the instance or to the relay."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def call(self, payload: bytes) -> bytes:
        return await self._client.call(ENDPOINT, payload, returns=bytes)


class DatacenterDirect:
    """Adaptor, see `bench.systems.System`."""

    route: RouteChoice = "direct"

    def server_commands(self, port: int, loop: Loop) -> Sequence[Command]:
        broker = f"tcp://127.0.0.1:{port}"
        if loop == "uvloop":
            datacenter = [str(Path(sysconfig.get_path("scripts"), "datacenter"))]
        else:
            datacenter = [sys.executable, "-m", __name__]
        return [
            [*datacenter, "up", "--listen", broker],
            [*datacenter, "serve", "bench.echo_service:echo", "--broker", broker],
        ]

    @asynccontextmanager
    async def connect(self, port: int) -> AsyncIterator[BusClient]:
        async with AsyncClient(f"tcp://127.0.0.1:{port}", options=ClientOptions(route=self.route)) as client:
            yield BusClient(client)


class DatacenterRelay(DatacenterDirect):
    """The same, every call through the relay."""

    route: RouteChoice = "relay"


def datacenter_without_uvloop() -> None:
    sys.modules["uvloop"] = None  # type: ignore[assignment]  # `import uvloop` now raises ImportError
    from datacenter.commands import main

    main()


if __name__ == "__main__":
    datacenter_without_uvloop()
