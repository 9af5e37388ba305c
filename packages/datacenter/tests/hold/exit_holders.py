"""Who holds clients when the process ends: one function a holder, for exiting.py. Services, brokers, relays and bare
sockets are in exit_services.py.

Each makes them, waits in `program.leave()` (or `leave_loop()`) for the end, and closes them or not, as its name says.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

from exiting import OPTIONS, Program, after_ours, before_ours, futures, in_a_thread, keep, wrong

from datacenter import AsyncClient, Client, DatacenterError
from datacenter.errors import ClosedError


@dataclass(frozen=True)
class Holder:
    """`named`: what the log line of the exit hook names, "" if nothing is left to it, None if that depends.
    `warns`: Python says that something was collected unclosed. `extra_s`: longer than the bound, by its own calls.
    `alone`: it makes its own broker, and is in the same state at any moment. `mute`: its loop does not answer.
    """

    run: Callable[[Program], None]
    named: str | None
    is_async: bool = False
    warns: bool = False
    extra_s: float = 0.0
    alone: bool = False
    mute: bool = False


HOLDERS: dict[str, Holder] = {}


def holder(named: str | None, **more: Any) -> Callable[[Callable[[Program], None]], Callable[[Program], None]]:
    def enter(function: Callable[[Program], None]) -> Callable[[Program], None]:
        HOLDERS[function.__name__.replace("_", "-")] = Holder(function, named, **more)
        return function

    return enter


def try_call(client: Client) -> None:
    """A call at a moment when it may be too late: it works, or says so in datacenter's words."""
    with contextlib.suppress(DatacenterError):
        client.call("shop.pid", deadline_s=0.1)


def try_new(broker: str) -> None:
    """A new client at such a moment."""
    with contextlib.suppress(DatacenterError), Client(broker, options=OPTIONS) as client:
        try_call(client)


# --- threads' clients


@holder("")
def sync_with(program: Program) -> None:
    with program.client():
        program.leave()


@holder("Client")
def sync_global(program: Program) -> None:
    keep.append(program.client())
    program.leave()


@holder(None, warns=True)
def sync_local(program: Program) -> None:
    client = program.client()
    program.leave()
    del client


@holder("Client")
def several_clients(program: Program) -> None:
    keep.extend(program.client() for _ in range(3))
    program.leave()


class Cycle:
    """Only the garbage collector can end it."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.me = self


class Talkative:
    """Makes a call, a client and a mess when it is finalised."""

    def __init__(self, client: Client, broker: str) -> None:
        self.client = client
        self.broker = broker
        self.errors = DatacenterError  # module globals may be gone by then

    def __del__(self) -> None:
        try:
            self.client.call("shop.pid", deadline_s=0.05)
            Client(self.broker).close()
        except self.errors:
            pass
        self.client.close()
        repr(self.client)


class TalkativeCycle(Talkative):
    def __init__(self, client: Client, broker: str) -> None:
        super().__init__(client, broker)
        self.me = self


@holder(None, warns=True)
def cycle(program: Program) -> None:
    Cycle(program.client())
    program.leave()


@holder(None, warns=True, extra_s=0.2)
def cycle_with_del(program: Program) -> None:
    TalkativeCycle(program.client(), program.broker)
    program.leave()


@holder("Client", extra_s=0.2)
def global_with_del(program: Program) -> None:
    keep.append(Talkative(program.client(), program.broker))
    program.leave()


@holder("Client", extra_s=0.2)
def call_in_exit_handler(program: Program) -> None:
    client = program.client()
    before_ours.append(lambda: try_call(client))
    program.leave()


@holder("Client", extra_s=0.2)
def new_client_in_exit_handler(program: Program) -> None:
    keep.append(program.client())
    before_ours.append(lambda: try_new(program.broker))
    program.leave()


@holder("", extra_s=0.2)
def client_closed_in_exit_handler(program: Program) -> None:
    client = program.client()
    before_ours.append(client.close)
    program.leave()


def must_refuse(work: Callable[[], object]) -> None:
    try:
        work()
    except ClosedError:
        return
    wrong("after datacenter's end there was no ClosedError")


@holder("Client")
def call_after_the_end(program: Program) -> None:
    client = program.client()
    after_ours.append(lambda: must_refuse(lambda: client.call("shop.pid", deadline_s=0.1)))
    program.leave()


@holder("Client")
def new_client_after_the_end(program: Program) -> None:
    keep.append(program.client())
    after_ours.append(lambda: must_refuse(lambda: Client(program.broker)))
    program.leave()


@holder("Client")
def suspended_generator(program: Program) -> None:
    def work() -> Iterator[int]:
        with program.client() as client:
            yield 1
            try_call(client)

    generator = work()
    next(generator)
    keep.append(generator)
    program.leave()


@holder("Client")
def thread_local(program: Program) -> None:
    local = threading.local()
    keep.append(local)
    local.client = program.client()
    program.leave()


@holder(None, warns=True)
def daemon_threads(program: Program) -> None:
    made = concurrent.futures.Future[None]()

    def work() -> None:
        client = program.client()
        made.set_result(None)
        with contextlib.suppress(DatacenterError):
            client.call("shop.wait", 60, deadline_s=60)

    for _ in range(2):
        made = concurrent.futures.Future()
        in_a_thread(work)
        made.result()
    program.leave()


@holder("Client", extra_s=0.8)
def non_daemon_thread(program: Program) -> None:
    client = program.client()
    keep.append(client)
    main = threading.main_thread()

    def work() -> None:
        while main.is_alive():
            main.join(0.01)
        for _ in range(3):  # the interpreter waits for this thread
            with contextlib.suppress(DatacenterError):
                client.call("shop.pid", deadline_s=0.2)
        try_new(program.broker)

    in_a_thread(work, daemon=False)
    program.leave()


@holder("Client", extra_s=0.4)
def thread_pool(program: Program) -> None:
    client = program.client()
    pool = concurrent.futures.ThreadPoolExecutor(4)
    keep.append(pool)
    for _ in range(4):
        futures.append(pool.submit(client.call, "shop.wait", 60, deadline_s=0.3))
    program.leave()


@holder(None, extra_s=0.2)
def closers(program: Program) -> None:
    """Several threads close while the end comes."""
    clients = [program.client() for _ in range(3)]
    keep.extend(clients)
    for client in clients:
        in_a_thread(client.close)
    program.leave()


# --- asynchronous clients


def in_loop(named: str | None, **more: Any) -> Callable[[Any], Any]:
    """Enters a coroutine function as a holder, run by asyncio.run."""

    def enter(function: Any) -> Any:
        def run(program: Program) -> None:
            asyncio.run(function(program))

        run.__name__ = function.__name__
        holder(named, is_async=True, **more)(run)
        return function

    return enter


@in_loop("")
async def async_with(program: Program) -> None:
    async with await program.async_client():
        await program.leave_loop()


@in_loop("AsyncClient")
async def async_global(program: Program) -> None:
    keep.append(await program.async_client())
    await program.leave_loop()


@in_loop(None, warns=True)
async def async_local(program: Program) -> None:
    client = await program.async_client()
    await program.leave_loop()
    del client


async def _suspended(client: AsyncClient) -> None:
    async with client:
        await asyncio.Event().wait()


@in_loop("AsyncClient")
async def suspended_coroutine(program: Program) -> None:
    coroutine = _suspended(await program.async_client())
    coroutine.send(None)
    keep.append(coroutine)
    await program.leave_loop()


async def _numbers(client: AsyncClient) -> AsyncIterator[int]:
    async with client:
        yield 1
        yield 2


@in_loop("")
async def async_generator(program: Program) -> None:
    generator = _numbers(await program.async_client())
    await generator.__anext__()
    keep.append(generator)
    await program.leave_loop()  # asyncio.run closes the generator, and that the client


def _with_loop(program: Program, loop: asyncio.AbstractEventLoop) -> None:
    async def begin() -> None:
        keep.append(await program.async_client())

    keep.append(loop)
    loop.run_until_complete(begin())


@holder("AsyncClient")
def loop_closed_first(program: Program) -> None:
    program.activity = program.activity.replace("calling", "idle")  # a loop with tasks in it complains by itself
    loop = asyncio.new_event_loop()
    _with_loop(program, loop)
    loop.close()
    program.leave()


@holder("AsyncClient", warns=True)  # of the loop
def loop_never_run_again(program: Program) -> None:
    program.activity = program.activity.replace("calling", "idle")
    _with_loop(program, asyncio.new_event_loop())
    program.leave()


@holder("AsyncClient")
def loop_in_daemon_thread(program: Program) -> None:
    loop = asyncio.new_event_loop()
    in_a_thread(loop.run_forever)

    async def begin() -> None:
        keep.append(await program.async_client())

    asyncio.run_coroutine_threadsafe(begin(), loop).result()
    program.leave()


@holder("AsyncClient", mute=True)
def blocked_loop_in_daemon_thread(program: Program) -> None:
    loop, blocked = asyncio.new_event_loop(), threading.Event()
    in_a_thread(loop.run_forever)

    async def begin() -> None:
        keep.extend([await program.async_client(), await program.async_client()])

    def block() -> None:
        blocked.set()
        time.sleep(60)

    asyncio.run_coroutine_threadsafe(begin(), loop).result()
    loop.call_soon_threadsafe(block)
    blocked.wait()
    program.leave()


def _uvloop(program: Program, work: Callable[[Program], Any]) -> None:
    import uvloop

    uvloop.install()
    asyncio.run(work(program))


@holder("", is_async=True)
def uvloop_with(program: Program) -> None:
    _uvloop(program, async_with)


@holder("AsyncClient", is_async=True)
def uvloop_global(program: Program) -> None:
    _uvloop(program, async_global)
