"""The interpreter's end with something still open: bounded, in order, told in one line, and nobody is left waiting.

Each case is a program; `make hold-exit` plays every combination at random moments.
"""

from __future__ import annotations

import asyncio
import gc
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Awaitable, Callable

import pytest

from datacenter import Broker, BrokerOptions, Client, runtime
from datacenter.errors import ClosedError, WrongLoopError
from datacenter.interruptions import uninterrupted
from datacenter.threads import DaemonPool

Until = Callable[[Callable[[], object], str], Awaitable[None]]

DEADLINE_S = 20.0
NOBODY = "tcp://127.0.0.1:9"
BEGIN = """
import atexit, logging, os, signal, sys, threading, time
after = []
atexit.register(lambda: [work() for work in after])  # runs when datacenter has ended
import asyncio
from datacenter import AsyncClient, Client, Server, Service, ServiceOptions, runtime
from datacenter.errors import ClosedError
logging.basicConfig(format="%(name)s %(message)s", level=logging.INFO)
address = sys.argv[1]
signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever the shell of the tests does with it
"""


def play(program: str, address: str = NOBODY, status: int = 0) -> str:
    """Runs a program; what it said on standard error, after what it said on standard output."""
    words = [sys.executable, "-c", BEGIN + textwrap.dedent(program), address]
    done = subprocess.run(words, capture_output=True, text=True, timeout=DEADLINE_S)
    assert done.returncode == status, done.stderr
    return done.stdout + done.stderr


async def play_beside(program: str, address: str) -> str:
    """The same while the loop of the test runs."""
    return await asyncio.to_thread(play, program, address)


@pytest.mark.parametrize(
    "what",
    [
        "client = Client(address)",
        "async def serve():\n"
        "    global server\n"
        "    server = Server(service, broker=address)\n"
        "    server.start()\n"
        "    await server.registered()\n"
        "service = Service('forgotten')\n"
        "asyncio.run(serve())",
    ],
    ids=["client", "server"],
)
async def test_the_broker_hears_of_an_end_that_nobody_prepared(what: str, until: Until) -> None:
    # Its lease and its heartbeats are so long that only a goodbye can take it out of the registry.
    options = BrokerOptions(heartbeat_s=20, lease_s=60, grace_leases=0)
    async with Broker("tcp://127.0.0.1:0", options=options) as broker:
        wait = "\nnext(iter(runtime._current._sessions.values()))[0].wait_connected(10)\nprint('up')\n"
        said = await play_beside(what + wait, broker.endpoint)
        assert "up" in said
        assert broker.statistics()["received"] > 0
        await until(lambda: broker.statistics()["sessions"] == 0, "the goodbye has come")
        assert broker.statistics()["instances"] == 0


def test_who_waits_for_a_call_hears_that_it_is_over() -> None:
    said = play(
        """
        client = Client(address)
        call = client.submit("shop.pid", deadline_s=60)
        after.append(lambda: print("ended with", type(call.exception(0)).__name__))
        """
    )
    assert "ended with ClosedError" in said


def test_one_line_names_what_was_open() -> None:
    said = play("one, other = Client(address), Client(address)")
    lines = [line for line in said.splitlines() if "closed at exit" in line]
    assert len(lines) == 1
    assert lines[0].count("<Client tcp://127.0.0.1:9") == 2


def test_nothing_is_said_when_nothing_was_open() -> None:
    assert "at exit" not in play("Client(address).close()")


def test_after_the_end_calls_and_new_clients_are_refused() -> None:
    said = play(
        """
        def refused(work):
            try:
                work()
            except ClosedError as error:
                print("refused:", error.message)

        client = Client(address)
        after.append(lambda: refused(lambda: client.call("shop.pid")))
        after.append(lambda: refused(lambda: Client(address)))
        after.append(lambda: print("threads:", threading.active_count()))
        """
    )
    assert "refused: this client is closed" in said
    assert "refused: the interpreter is ending, and datacenter has ended before it" in said
    assert "threads: 1" in said  # the hook has waited for all of its own


def test_signals_that_come_while_the_hook_runs_do_not_stop_it() -> None:
    said = play(
        """
        class Impatient:
            def close_now(self):
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGTERM)

        signal.signal(signal.SIGTERM, lambda *_: print("the handler ran"))
        client, impatient = Client(address), Impatient()
        runtime.remember(impatient)
        after.append(lambda: print(client))
        """
    )
    assert "<Client closed>" in said
    assert "the handler ran" in said
    assert "Interrupt" not in said


def test_a_loop_that_does_not_answer_costs_no_more_than_the_bound() -> None:
    said = play(
        """
        loop, blocked = asyncio.new_event_loop(), threading.Event()
        threading.Thread(target=loop.run_forever, daemon=True).start()

        async def make():
            return [AsyncClient(address) for _ in range(10)]

        def block():
            blocked.set()
            time.sleep(60)

        clients = asyncio.run_coroutine_threadsafe(make(), loop).result()
        loop.call_soon_threadsafe(block)
        blocked.wait()
        """
    )
    line = next(line for line in said.splitlines() if "closed at exit in" in line)
    milliseconds = int(line.partition("closed at exit in ")[2].split()[0])
    assert 100 < milliseconds < 2000, line  # 0.4 s for the loop; without the bound 60 s, or 10 times 0.5 s
    assert said.count("did not answer") == 1


def test_a_second_interrupt_while_it_closes_leaves_the_rest_to_the_hook() -> None:
    said = play(
        """
        client = Client(address)
        held = threading.Event()
        client._runtime.reactor.call(held.wait, 10)  # so that close() has to wait
        threading.Timer(0.2, lambda: [os.kill(os.getpid(), signal.SIGINT), held.set()]).start()
        try:
            client.close()
        except KeyboardInterrupt:
            print("interrupted")
        after.append(lambda: print("left:", runtime._current, runtime._runtimes))
        """
    )
    assert "interrupted" in said
    assert "left: None {}" in said


def test_what_another_thread_is_closing_is_waited_for() -> None:
    said = play(
        """
        async def main():
            client = AsyncClient(address)
            client._runtime.reactor.call(time.sleep, 0.3)
            closing = asyncio.ensure_future(client.close())
            while not runtime._closers:
                await asyncio.sleep(0)
            sys.exit(0)

        after.append(lambda: print("left:", runtime._current, runtime._runtimes))
        asyncio.run(main())
        """
    )
    assert "left: None {}" in said


def test_a_closer_that_has_not_started_does_not_stop_the_hook() -> None:
    client = Client(NOBODY)
    starting = threading.Thread(target=client.close)
    runtime._closers.add(starting)
    try:
        runtime.close_all()
    finally:
        runtime._closers.discard(starting)
    assert "closed" in repr(client)


# --- finalisers: the garbage collector runs them in any thread, under any lock


def test_a_finaliser_in_a_thread_that_others_wait_for_does_not_wait() -> None:
    found: list[object] = []
    client = Client(NOBODY)
    ran = threading.Event()

    class Talkative:
        def __init__(self, client: Client) -> None:
            self.client = client
            self.me = self

        def __del__(self) -> None:
            for work in (lambda: self.client.call("shop.pid"), lambda: Client(NOBODY)):
                try:
                    work()
                except WrongLoopError as error:
                    found.append(error)
            self.client.close()
            ran.set()

    def collect() -> None:
        Talkative(client)
        gc.collect()

    client._runtime.reactor.call(collect)
    assert ran.wait(DEADLINE_S)
    assert len(found) == 2
    for closer in list(runtime._closers):
        closer.join(DEADLINE_S)
    assert runtime._current is None


def test_a_finaliser_under_the_runtimes_lock_may_close() -> None:
    client = Client(NOBODY)
    with runtime._lock:
        client.close()  # in the background: others wait for this lock
    for closer in list(runtime._closers):
        closer.join(DEADLINE_S)
    assert runtime._current is None


def test_calls_after_the_reactors_end_are_refused_each() -> None:
    client = Client(NOBODY)
    assert client._runtime.reactor.stop(DEADLINE_S)
    for _ in range(2):
        with pytest.raises(ClosedError):
            client.submit("shop.pid").result(DEADLINE_S)
    client.close()
    assert runtime._current is None


# --- parts


def test_signals_wait_until_the_work_is_done() -> None:
    said: list[str] = []

    def work() -> None:
        signal.raise_signal(signal.SIGUSR1)
        said.append("work")

    before = signal.signal(signal.SIGUSR1, lambda *_: said.append("handler"))
    try:
        uninterrupted(work)
        assert said == ["work", "handler"]
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_pool_that_is_closed_takes_nothing() -> None:
    pool = DaemonPool(1, "test")
    assert pool.submit(lambda: 3).result(DEADLINE_S) == 3
    pool.close()
    with pytest.raises(RuntimeError, match="closed"):
        pool.submit(lambda: 4)
