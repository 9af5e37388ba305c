"""What clients, servers, brokers and relays do in a forked child, and what their parent notices: nothing.

All of them live in one process here, in one event loop, asyncio's or uvloop's, and that loop forks.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

PREPARE = """
    import asyncio, contextlib, os, sys, threading, time, warnings
    warnings.filterwarnings("ignore", ".*fork", DeprecationWarning)  # Python 3.12 warns of any fork beside threads
    from datacenter import AsyncClient, Broker, Client, Server, Service
    from datacenter.broker.relay_manager import RelayManager
    from datacenter.errors import ForkedError
    from datacenter.sockets import SocketContext
    if LOOP == "uvloop":
        import uvloop
    def run_loop(main):
        if LOOP == "asyncio":
            return asyncio.run(main)
        if sys.version_info >= (3, 11):
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                return runner.run(main)
        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
        return asyncio.run(main)
    def in_child_of(loop, task):
        if sys.version_info >= (3, 14):  # else asyncio itself cannot leave the task any more: docs/fork.md
            asyncio._set_running_loop(loop)
            asyncio._enter_task(loop, task)
    echo = Service("echo")
    @echo.method
    async def back(value: int) -> int:
        return value
    @echo.method
    def forks() -> int:
        pid = os.fork()
        if pid == 0:
            sys.exit(0)  # in a thread of the server's: ends the child
        return wait(pid)
    @echo.method
    def forks_and_returns() -> int:
        return os.fork() or 77  # the child's answer is nobody's
    def wait(pid):
        end = time.monotonic() + 20
        while (found := os.waitpid(pid, os.WNOHANG)) == (0, 0):
            if time.monotonic() > end:
                os.kill(pid, 9)
                os.waitpid(pid, 0)
                return 99
            time.sleep(0.005)
        return os.waitstatus_to_exitcode(found[1])
    def left():
        found = []
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(FileNotFoundError):
                found.append(os.readlink(f"/proc/self/fd/{name}"))
        return sorted(link for link in found if link.startswith(("socket", "anon_inode")))
    def play(scene):
        async def main():
            before = left()  # the loop's own
            async with Broker("tcp://127.0.0.1:0") as broker, Server(echo, broker=broker.endpoint) as server:
                async with AsyncClient(broker.endpoint) as client:
                    assert await client.call("echo.back", 1) == 1
                    await scene(before, broker, server, client)
                    for number in range(300):  # and nobody has noticed
                        assert await client.call("echo.back", number) == number
        run_loop(main())
"""


def run(scene: str, loop: str = "asyncio") -> None:
    source = f"LOOP = {loop!r}\n" + textwrap.dedent(PREPARE) + textwrap.dedent(scene)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", source], capture_output=True, text=True, timeout=90, check=False
    )
    assert done.returncode == 0, f"status {done.returncode}\n{done.stdout}\n{done.stderr}"
    complaints = [word for word in ("Traceback", "ignored", "Assertion", "Warning", "never") if word in done.stderr]
    assert not complaints, done.stderr


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_child_of_the_loop_has_nothing_and_may_use_nothing(loop: str) -> None:
    run(
        """
    async def scene(before, broker, server, client):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                own = left()  # what the loop waits with: as many, and of the sockets none of its parent's
                assert [link.split(":")[0] for link in own] == [link.split(":")[0] for link in before], (own, before)
                assert not {link for link in own if link.startswith("socket")} & {*before}, (own, before)
                def refused(use):
                    try:
                        use()
                    except ForkedError:
                        return True
                def run(coroutine):
                    coroutine.send(None)
                assert refused(lambda: client.call("echo.back", 2))
                assert refused(client.statistics)
                assert refused(lambda: run(client.resolve("echo")))
                assert refused(lambda: client.on_state(print))
                assert refused(server.statistics)
                assert refused(lambda: run(server.registered()))
                assert refused(broker.statistics)
                for thing in (client, server, broker):
                    repr(thing)
                    with contextlib.suppress(StopIteration):
                        run(thing.close())
                with Client(broker.endpoint) as own:
                    assert own.call("echo.back", 3, deadline_s=10) == 3
                status = 0
            finally:
                os._exit(status)
        assert await asyncio.to_thread(wait, pid) == 0
    play(scene)
    """,
        loop,
    )


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("end", ["raise RuntimeError('deliberate')", "sys.exit(7)"])
def test_a_child_of_the_loop_that_unwinds_it(loop: str, end: str) -> None:
    """asyncio closes its loop then, whose epoll the child shares with its parent."""
    run(
        f"""
    sys.excepthook = lambda *_: None
    async def scene(before, broker, server, client):
        calls = [client.call("echo.back", number) for number in range(50)]
        task = asyncio.current_task()
        pid = os.fork()
        if pid == 0:
            in_child_of(client._loop, task)
            {end}
        assert await asyncio.gather(*calls) == list(range(50))
        assert await asyncio.to_thread(wait, pid) == (7 if "exit" in {end!r} else 1)
    play(scene)
    """,
        loop,
    )


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_child_of_the_loop_looks_at_no_socket_of_its_parents(loop: str) -> None:
    """What was scheduled before the fork runs in the child, too; a receive would never return there."""
    run(
        """
    async def scene(before, broker, server, client):
        calls = [client.call("echo.back", number) for number in range(50)]
        task = asyncio.current_task()
        pid = os.fork()
        if pid == 0:
            loop = client._loop  # up to Python 3.11 asyncio.sleep() finds no running loop here
            in_child_of(loop, task)
            later = loop.create_future()
            loop.call_later(0.3, later.set_result, None)
            await later
            os._exit(0)
        assert await asyncio.gather(*calls) == list(range(50))
        assert await asyncio.to_thread(wait, pid) == 0
    play(scene)
    """,
        loop,
    )


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_child_may_go_on_in_the_inherited_loop(loop: str) -> None:
    """With all that was scheduled in it: no socket of the parent's is looked at, where a receive would never return."""
    run(
        """
    loop = asyncio.new_event_loop() if LOOP == "asyncio" else uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    run = loop.run_until_complete
    async def make():
        broker = Broker("tcp://127.0.0.1:0")
        await broker.__aenter__()
        return broker, await Server(echo, broker=broker.endpoint).__aenter__(), AsyncClient(broker.endpoint)
    broker, server, client = run(make())
    async def calls(numbers):
        assert await asyncio.gather(*[client.call("echo.back", number) for number in numbers]) == list(numbers)
    run(calls(range(50)))
    pid = os.fork()
    if pid == 0:
        async def go_on():
            try:
                await client.call("echo.back", 1)
            except ForkedError:
                await asyncio.to_thread(time.sleep, 0.01)
                await asyncio.sleep(0.7)  # heartbeats, ticks and looks at sockets fall due
                os._exit(0)
        run(go_on())
        os._exit(1)
    async def beside():
        assert await asyncio.to_thread(wait, pid) == 0
    run(asyncio.wait_for(asyncio.gather(calls(range(50)), beside()), 30))
    run(calls(range(300)))
    async def end():
        for thing in (client, server, broker):
            await thing.close()
    run(end())
    loop.close()
    """,
        loop,
    )


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("case", ["numbers apart", "no number left", "two loops"])
def test_a_parents_loop_stays_whole_wherever_its_numbers_are(loop: str, case: str) -> None:
    """Without a free descriptor as well, and when another loop of the thread has forked."""
    run(
        f"""
    import resource
    CASE = {case!r}
    sys.excepthook = lambda *_: None
    if CASE == "numbers apart":  # the loop's first descriptor comes below all others of it
        low = os.open("/dev/null", os.O_RDONLY)
        high = os.open("/dev/null", os.O_RDONLY)
        os.close(low)
    other = asyncio.new_event_loop() if LOOP == "asyncio" else uvloop.new_event_loop()
    async def use(broker):
        async with AsyncClient(broker) as client:
            return await client.call("echo.back", 1)
    async def scene(before, broker, server, client):
        if CASE == "two loops":
            await asyncio.to_thread(lambda: other.run_until_complete(use(broker.endpoint)))
        for _ in range(5):
            task, filled = asyncio.current_task(), []
            if CASE == "no number left":
                soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
                resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
                with contextlib.suppress(OSError):
                    while True:
                        filled.append(os.dup(0))
            pid = os.fork()
            if pid == 0:
                for number in filled:
                    os.close(number)
                in_child_of(client._loop, task)
                sys.exit(7)
            for number in filled:
                os.close(number)
            if filled:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            calls = [client.call("echo.back", number) for number in range(50)]
            assert await asyncio.gather(*calls) == list(range(50))
            await asyncio.to_thread(wait, pid)
            await asyncio.gather(*[asyncio.to_thread(time.sleep, 0.001) for _ in range(50)])
    play(scene)
    other.close()
    """,
        loop,
    )


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_signal_to_a_child_is_none_to_its_parent(loop: str) -> None:
    """Python's handler writes it where the loop reads, and the child has a copy of that end."""
    run(
        """
    import signal
    def forks():
        pid = os.fork()
        if pid == 0:
            end = time.monotonic() + 0.3
            while time.monotonic() < end:
                time.sleep(0.05)  # also after the signal
            os._exit(3)
        return pid
    async def scene(before, broker, server, client):
        loop, told = asyncio.get_running_loop(), []
        loop.add_signal_handler(signal.SIGTERM, told.append, 1)
        for in_thread in (False, True):
            pid = await asyncio.to_thread(forks) if in_thread else forks()
            await asyncio.sleep(0.1)
            os.kill(pid, signal.SIGTERM)
            assert await asyncio.to_thread(wait, pid) == 3
            assert await client.call("echo.back", 1) == 1
            assert told == []
        os.kill(os.getpid(), signal.SIGTERM)
        while not told:
            await asyncio.sleep(0.01)
        assert told == [1]
    play(scene)
    """,
        loop,
    )


def test_a_method_that_forks() -> None:
    """In a thread of the server's. The child answers nobody, and ends when the method does."""
    run(
        """
    async def scene(before, broker, server, client):
        for _ in range(3):
            assert await client.call("echo.forks", deadline_s=30) == 0
            pid = await client.call("echo.forks_and_returns", deadline_s=30)
            assert pid != 77
            assert await asyncio.to_thread(wait, pid) == 0
    play(scene)
    """
    )


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_an_asynchronous_method_that_forks(loop: str) -> None:
    """In the server's loop. The child ends with the method, with the status of a program that ends so."""
    run(
        """
    sys.stderr = sys.stdout
    @echo.method
    async def forks_in_loop(how: str) -> int:
        pid = os.fork()
        if pid == 0:
            if how == "exits":
                sys.exit(7)
            if how == "says":
                sys.exit("deliberate")
            if how == "raises":
                raise RuntimeError("deliberate")
            return 1
        return await asyncio.to_thread(wait, pid)
    @echo.method
    async def slow() -> int:
        await asyncio.sleep(0.5)
        return 1
    async def scene(before, broker, server, client):
        for how, status in (("returns", 0), ("exits", 7), ("says", 1), ("raises", 1)):
            assert await client.call("echo.forks_in_loop", how, deadline_s=30) == status, how
        slowly = client.call("echo.slow", deadline_s=30)  # another's method, in flight in the child, too
        await asyncio.sleep(0.1)
        sys.excepthook = lambda *_: None
        task = asyncio.current_task()
        pid = os.fork()
        if pid == 0:
            in_child_of(client._loop, task)
            sys.exit(42)
        assert await asyncio.to_thread(wait, pid) == 42
        assert await slowly == 1
    play(scene)
    """,
        loop,
    )


def test_a_callback_in_the_reactors_thread_that_forks() -> None:
    run(
        """
    async def scene(before, broker, server, _):
        def threads():
            with Client(broker.endpoint) as client:
                pids = []
                def fork(_):
                    pid = os.fork()
                    if pid == 0:
                        with Client(broker.endpoint) as own:
                            if own.call("echo.back", 5, deadline_s=10) != 5:
                                os._exit(1)
                        return
                    pids.append(pid)
                future = client.submit("echo.back", 4, deadline_s=10)
                future.add_done_callback(fork)
                assert future.result() == 4
                end = time.monotonic() + 10
                while not pids and time.monotonic() < end:
                    time.sleep(0.005)
                assert wait(pids[0]) == 0
                assert client.call("echo.back", 6, deadline_s=10) == 6
        await asyncio.to_thread(threads)
    play(scene)
    """
    )


def test_a_relay_and_its_manager() -> None:
    run(
        """
    with SocketContext("relays") as context:
        manager = RelayManager(context)
        relay = manager.get_or_create("echo")
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                assert left() == [], left()
                uses = [lambda: manager.get("echo"), lambda: manager.get_or_create("other"), manager.statistics,
                        lambda: manager.remove("echo"), lambda: relay.endpoint, relay.statistics, relay.connected,
                        lambda: relay.set_instances([])]
                refused = 0
                for use in uses:
                    try:
                        use()
                    except ForkedError:
                        refused += 1
                assert refused == len(uses)
                assert relay.state == "forked" and "forked" in repr(manager)
                assert relay.stop().clean and manager.close().clean
                with SocketContext("own") as own:
                    second = RelayManager(own)
                    assert second.get_or_create("echo").state == "serving"
                    assert second.close().clean
                status = 0
            finally:
                os._exit(status)
        assert wait(pid) == 0
        assert relay.state == "serving" and manager.get("echo") is relay
        assert manager.close().clean
    """
    )


@pytest.mark.parametrize("end", ["raise RuntimeError('deliberate')", "sys.exit(0)", "pass"])
def test_the_exit_hooks_of_a_child_touch_nothing_of_the_parents(end: str) -> None:
    """A client forgotten in a global, in the parent and again in the child, and an exit hook of the user's own."""
    run(
        f"""
    import atexit
    async def serve(ready, stop):
        async with Broker("tcp://127.0.0.1:0") as broker, Server(echo, broker=broker.endpoint):
            ready.append(broker.endpoint)
            await asyncio.to_thread(stop.wait)
    ready, stop = [], threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(serve(ready, stop)))
    thread.start()
    while not ready:
        time.sleep(0.005)
    forgotten = Client(ready[0])
    assert forgotten.call("echo.back", 1, deadline_s=10) == 1
    sys.excepthook = lambda *_: None
    pid = os.fork()
    if pid == 0:
        second = Client(ready[0])
        assert second.call("echo.back", 2, deadline_s=10) == 2
        def hook():
            try:
                forgotten.call("echo.back", 3)
            except ForkedError:
                return
            os._exit(9)
        atexit.register(hook)
        {end}
    else:
        assert wait(pid) == (1 if "raise" in {end!r} else 0)
        assert forgotten.call("echo.back", 4, deadline_s=10) == 4
        forgotten.close()
        stop.set()
        thread.join()
    """
    )
