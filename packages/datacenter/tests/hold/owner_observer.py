"""Asks brokers who serves `owner`, calls it, and writes down what it hears, a line of JSON each.

python owner_observer.py BROKERS asks|calls

asks: each of BROKERS again and again, by a session of its own. calls: `owner.whoami` through any of them, and what a
client that moves between them is told.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from typing import Any

from datacenter import AsyncClient, ClientOptions, clock, runtime
from datacenter.errors import DatacenterError
from datacenter.session import SessionOptions
from datacenter.wire import Resolution

PAUSE_S = 0.03


def say(line: dict[str, Any]) -> None:
    """In one piece: two threads speak."""
    sys.stdout.write(f"{json.dumps(line)}\n")
    sys.stdout.flush()


def write(by: str, asked: float, resolution: Resolution) -> None:
    epochs = {instance.id: instance.epoch for instance in resolution.instances}
    line = {"resolved": by, "asked": asked, "at": clock.now(), "version": resolution.version, "epochs": epochs}
    say(line)


async def ask(address: str) -> None:
    owner = runtime.acquire()
    session = owner.session(address, SessionOptions(request_s=1.0, reconnect_max_ms=200))
    while True:
        asked = clock.now()
        with contextlib.suppress(DatacenterError):
            await asyncio.to_thread(session.wait_connected, 1.0)
            if session.state == "connected":
                answer = asyncio.wrap_future(session.resolve("owner", "rpc"))
                with contextlib.suppress(asyncio.TimeoutError):
                    resolution = await asyncio.wait_for(answer, 1.0)
                    if resolution.state in ("live", "away"):
                        write(f"broker {address}", asked, resolution)
        await asyncio.sleep(PAUSE_S)


async def call(addresses: str) -> None:
    async with AsyncClient(addresses, options=ClientOptions(route="direct", reconnect_max_ms=200)) as client:

        def told(news: Any) -> None:
            if isinstance(news, Resolution) and news.state in ("live", "away"):
                write("a client", clock.now(), news)

        client._session.watch("owner", "rpc", told)
        while True:
            with contextlib.suppress(DatacenterError):
                instance, epoch, at = await client.call("owner.whoami", deadline_s=1.0)
                say({"answered": instance, "epoch": epoch, "at": at})
            await asyncio.sleep(PAUSE_S)


async def main(addresses: str, what: str) -> None:
    say({"observing": addresses})
    if what == "calls":
        await call(addresses)
    else:
        await asyncio.gather(*(ask(address) for address in addresses.split(",")))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
