"""A program that ends. Arguments: HOLDER WAY ACTIVITY BROKER.

HOLDER: who holds the clients, services, brokers and relays when the end comes (exit_holders.py, exit_services.py).
WAY: how it ends; the tables WAYS and ASYNC_WAYS say with which status.
ACTIVITY: idle; calling (short calls and a long one, without pause); connecting (nobody ever answers).

Says "ready" when it is in that state. A line "flood" on standard input has each client send more than a peer that does
not read takes, another line has it leave; it says "leaving T" (time.monotonic()) just before. What it finds wrong it
says as a line with "WRONG" on standard error.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextlib
import faulthandler
import logging
import os
import random
import select
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

#: run by an exit handler that was registered before `import datacenter`: after datacenter has ended
after_ours: list[Callable[[], object]] = []


@atexit.register
def _after_ours() -> None:
    for work in after_ours:
        work()


from datacenter import AsyncClient, Client, ClientOptions, DatacenterError  # noqa: E402

#: run by an exit handler that was registered after `import datacenter`: before datacenter ends
before_ours: list[Callable[[], object]] = []


@atexit.register
def _before_ours() -> None:
    for work in before_ours:
        work()


#: way -> (status, how the one traceback that may be printed ends, or "")
WAYS: dict[str, tuple[int, str]] = {
    "return": (0, ""),
    "exception": (1, "RuntimeError: deliberate"),
    "exit": (7, ""),
    "thread-exception": (0, "RuntimeError: deliberate"),
    "thread-exit": (0, ""),
    "os._exit": (9, ""),
    "SIGTERM": (-signal.SIGTERM, ""),
    "SIGTERM-handled": (5, ""),
    "SIGINT": (-signal.SIGINT, "KeyboardInterrupt"),
    "SIGINT-twice": (-signal.SIGINT, "KeyboardInterrupt"),
    "SIGINT-at-exit": (0, "KeyboardInterrupt"),
}
#: ways that need an event loop
ASYNC_WAYS: dict[str, tuple[int, str]] = {
    "callback-exit": (7, ""),
    "task-exit": (7, ""),
    "cancelled": (1, "CancelledError"),
}
OPTIONS = ClientOptions(reconnect_min_ms=1, reconnect_max_ms=1)
LARGE = bytes(60_000)

keep: list[object] = []  # what is forgotten in a global
futures: list[concurrent.futures.Future[Any]] = []  # what threads wait for
let_go: list[asyncio.Future[Any]] = []  # calls of a loop that nobody waits for


def wrong(what: str) -> None:
    print(f"WRONG: {what}", file=sys.stderr, flush=True)


def in_a_thread(work: Callable[[], object], *, daemon: bool = True) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=daemon)
    thread.start()
    return thread


class Asked:
    """Lines of standard input, waited for so that no signal is missed: one that comes just before read() blocks is only
    noted by Python, which then reads on. The wake-up descriptor ends the wait whenever it comes.
    """

    def __init__(self) -> None:
        self._signalled, wakes = os.pipe()
        for end in (self._signalled, wakes):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
        self._read = b""

    def line(self) -> bytes:
        """The next line; empty at the end of the input."""
        while b"\n" not in self._read:
            ready, _, _ = select.select([0, self._signalled], [], [])
            if self._signalled in ready:
                os.read(self._signalled, 64)
            if 0 in ready:
                data = os.read(0, 4096)
                if not data:
                    return b""
                self._read += data
        line, _, self._read = self._read.partition(b"\n")
        return line


class Program:
    """What the words of the command line ask for."""

    def __init__(self, way: str, activity: str, broker: str) -> None:
        self.way = way
        self.activity = activity
        self.broker = broker
        self.flooders: list[weakref.ref[Client | AsyncClient]] = []

    # --- activities

    def client(self) -> Client:
        """A Client that does what ACTIVITY says."""
        client = Client(self.broker, options=OPTIONS)
        self.flooders.append(weakref.ref(client))
        if self.activity == "connecting":
            futures.append(client.submit("shop.pid", deadline_s=60))
            return client
        client.call("shop.pid", deadline_s=10)
        if self.activity == "calling":
            futures.append(client.submit(random.choice(["shop.wait", "shop.block"]), 60, deadline_s=60))
            for _ in range(3):
                in_a_thread(lambda: self.call_for_ever(client))
        return client

    def flood(self) -> None:
        """Each client of this loop, and each one for threads, sends more than a peer that does not read takes."""
        for client in filter(None, [reference() for reference in self.flooders]):
            with contextlib.suppress(DatacenterError):
                for _ in range(200):
                    if isinstance(client, Client):
                        futures.append(client.submit("shop.echo", LARGE, deadline_s=60))
                    else:
                        self.let_run(client.call("shop.echo", LARGE, deadline_s=60))
        print("flooded", flush=True)

    @staticmethod
    def call_for_ever(client: Client) -> None:
        while True:
            with contextlib.suppress(DatacenterError):
                client.call("shop.pid", deadline_s=5)
            time.sleep(random.uniform(0, 0.02))

    async def async_client(self) -> AsyncClient:
        """An AsyncClient that does what ACTIVITY says."""
        client = AsyncClient(self.broker, options=OPTIONS)
        self.flooders.append(weakref.ref(client))
        if self.activity == "connecting":
            self.let_run(client.call("shop.pid", deadline_s=60))
            return client
        await client.call("shop.pid", deadline_s=10)
        if self.activity == "calling":
            self.let_run(client.call(random.choice(["shop.wait", "shop.block"]), 60, deadline_s=60))
            for _ in range(3):
                self.let_run(asyncio.ensure_future(self.async_calls(client)))
        return client

    @staticmethod
    async def async_calls(client: AsyncClient) -> None:
        while True:
            with contextlib.suppress(DatacenterError):
                await client.call("shop.pid", deadline_s=5)
            await asyncio.sleep(random.uniform(0, 0.02))

    @staticmethod
    def let_run(future: asyncio.Future[Any]) -> None:
        # A signal handler's sys.exit() may land in any task, and asyncio complains of those whose result nobody looks
        # at, with or without a client in them. A call that fails in the loop's very last turn has its callback no more:
        # check_futures looks at it.
        future.add_done_callback(lambda done: done.cancelled() or done.exception())
        if not isinstance(future, asyncio.Task):
            let_go.append(future)

    # --- ends

    def leave(self) -> None:
        """Waits until it is asked, then ends in the main thread, without a loop."""
        asked = Asked()
        print("ready", flush=True)
        while asked.line() == b"flood":
            self.flood()
        self._go()
        if self.way == "exception":
            raise RuntimeError("deliberate")
        if self.way == "exit":
            sys.exit(7)

    async def leave_loop(self) -> None:
        """The same in a coroutine."""
        loop, asked = asyncio.get_running_loop(), asyncio.Event()

        def wait() -> None:
            while sys.stdin.readline() == "flood\n":
                loop.call_soon_threadsafe(self.flood)
            loop.call_soon_threadsafe(asked.set)

        in_a_thread(wait)
        print("ready", flush=True)
        await asked.wait()
        self._go()
        if self.way == "exception":
            raise RuntimeError("deliberate")
        if self.way == "exit":
            sys.exit(7)
        if self.way == "callback-exit":
            loop.call_soon(sys.exit, 7)
            await asyncio.Event().wait()
        if self.way == "task-exit":
            self.let_run(asyncio.ensure_future(_exit_in_task()))
            await asyncio.Event().wait()
        if self.way == "cancelled":
            task = asyncio.current_task()
            assert task is not None
            loop.call_soon(task.cancel)
            await asyncio.Event().wait()

    def _go(self) -> None:
        print(f"leaving {time.monotonic()}", flush=True)
        if self.way == "os._exit":
            os._exit(9)
        if self.way == "thread-exit":
            in_a_thread(lambda: sys.exit(3)).join()
        if self.way == "thread-exception":
            in_a_thread(_raise).join()

    def arm(self) -> None:
        """What must be there before the end comes."""
        if self.way == "SIGTERM-handled":
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))
        if self.way == "SIGINT-at-exit":
            begun = threading.Event()

            def interrupt() -> None:
                begun.wait()
                time.sleep(random.uniform(0, 0.02))
                os.kill(os.getpid(), signal.SIGINT)

            in_a_thread(interrupt)
            before_ours.append(begun.set)


def _raise() -> None:
    raise RuntimeError("deliberate")


async def _exit_in_task() -> None:
    sys.exit(7)


def check_futures() -> None:
    """Whoever waits for a call has heard of its end, in words that datacenter has for it."""
    open_ones = sum(not future.done() for future in futures)
    if open_ones:
        wrong(f"{open_ones} of {len(futures)} calls have not ended")
    ended = [future for future in (*futures, *let_go) if future.done() and not future.cancelled()]
    for future in ended:
        if not isinstance(future.exception(), (DatacenterError, type(None))):
            wrong(f"a call ended with {future.exception()!r}")


def main() -> None:
    from exit_services import HOLDERS

    faulthandler.register(signal.SIGUSR1)  # where a process hangs, exits.py wants to know
    holder, way, activity, broker = sys.argv[1:]
    logging.basicConfig(format="%(levelname)s %(name)s %(message)s")
    logging.getLogger("datacenter").setLevel(logging.INFO)
    program = Program(way, activity, broker)
    program.arm()
    after_ours.append(check_futures)
    HOLDERS[holder].run(program)


if __name__ == "__main__":
    sys.modules["exiting"] = sys.modules["__main__"]  # the holders import it
    main()
