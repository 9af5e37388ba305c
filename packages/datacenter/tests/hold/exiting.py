"""Programs that end in every way, with calls in flight. Arguments: WHAT MANNER BROKER.

WHAT: sync, sync-global, sync-unclosed, async, async-global, async-unclosed, server, broker.
MANNER: return, exception, thread, signal (ends by its default action), handler (SIGTERM as sys.exit(0)).

Says "ready" when calls flow, and "leaving T" (time.monotonic()) just before it leaves by itself, which a line on
standard input asks for.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import random
import signal
import sys
import threading
import time
from collections.abc import Callable

from shop import shop

from datacenter import AsyncClient, Broker, Client, ClientOptions, DatacenterError, Server

WHAT, MANNER, BROKER = sys.argv[1:]
OPTIONS = ClientOptions(reconnect_min_ms=10)
ERRORS = (DatacenterError, concurrent.futures.CancelledError)
keep: list[object] = []  # objects that are forgotten in globals


def asked_to_leave() -> None:
    sys.stdin.readline()


def leave() -> None:
    """The end that MANNER names, in the main thread."""
    print(f"leaving {time.monotonic()}", flush=True)
    if MANNER == "exception":
        raise RuntimeError("deliberate")


def in_a_thread(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def call_for_ever(client: Client, stop: threading.Event) -> None:
    """In flight at any moment: one short call and a long one, which waits in the service's loop or blocks a thread
    of it.
    """
    target = random.choice(["shop.wait", "shop.block"])
    long = client.submit(target, 60, deadline_s=60)
    while True:
        with contextlib.suppress(*ERRORS):
            client.call("shop.pid", deadline_s=5)
        if stop.is_set():
            sys.exit(3)  # in a thread: ends the thread alone
        if long.done():
            try:
                long = client.submit(target, 60, deadline_s=60)
            except DatacenterError:
                return
        time.sleep(0.001)


def run_client(client: Client) -> None:
    client.call("shop.pid", deadline_s=10)
    stop = threading.Event()
    threads = [in_a_thread(lambda: call_for_ever(client, stop)) for _ in range(3)]
    print("ready", flush=True)
    asked_to_leave()
    if MANNER == "thread":
        stop.set()
        threads[0].join(0.2)
    leave()


def sync() -> None:
    with Client(BROKER, options=OPTIONS) as client:
        run_client(client)


def sync_global() -> None:
    client = Client(BROKER, options=OPTIONS)
    keep.append(client)
    run_client(client)


def sync_unclosed() -> None:
    run_client(Client(BROKER, options=OPTIONS))


async def calls(client: AsyncClient) -> None:
    while True:
        with contextlib.suppress(DatacenterError):
            await client.call("shop.pid", deadline_s=5)
        await asyncio.sleep(0.001)


async def run_async_client(client: AsyncClient) -> None:
    await client.call("shop.pid", deadline_s=10)
    tasks = [asyncio.ensure_future(calls(client)) for _ in range(3)]
    for task in tasks:
        # A signal handler's sys.exit() may land in any task, and asyncio complains of those whose result nobody looks
        # at, with or without a client in them.
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
    long = client.call("shop.wait", 60, deadline_s=60)
    long.add_done_callback(lambda done: done.cancelled() or done.exception())
    await leave_when_asked()
    del tasks


async def leave_when_asked() -> None:
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()

    def wait() -> None:
        asked_to_leave()
        loop.call_soon_threadsafe(asked.set)

    in_a_thread(wait)
    print("ready", flush=True)
    await asked.wait()
    if MANNER == "thread":
        in_a_thread(lambda: sys.exit(3)).join()
    leave()


async def run_async() -> None:
    async with AsyncClient(BROKER, options=OPTIONS) as client:
        await run_async_client(client)


async def run_async_global() -> None:
    client = AsyncClient(BROKER, options=OPTIONS)
    keep.append(client)
    await run_async_client(client)


async def run_async_unclosed() -> None:
    await run_async_client(AsyncClient(BROKER, options=OPTIONS))


async def run_server() -> None:
    async with Server(shop, broker=BROKER) as server:
        keep.append(server)
        await leave_when_asked()


async def run_broker() -> None:
    async with Broker(BROKER):
        await leave_when_asked()


def main() -> None:
    if MANNER == "handler":
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    plain = {"sync": sync, "sync-global": sync_global, "sync-unclosed": sync_unclosed}
    if WHAT in plain:
        plain[WHAT]()
        return
    asynchronous = {
        "async": run_async,
        "async-global": run_async_global,
        "async-unclosed": run_async_unclosed,
        "server": run_server,
        "broker": run_broker,
    }
    asyncio.run(asynchronous[WHAT]())


if __name__ == "__main__":
    main()
