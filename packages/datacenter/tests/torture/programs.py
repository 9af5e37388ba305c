"""What the processes of a case run. Those under torture arm the injector themselves, or are armed from outside."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import zmq
from control import Control, wait_until

from datacenter import AsyncClient, Client, ClientOptions, DatacenterError, Server, Service, runtime
from datacenter.broker.relay_manager import RelayManager
from datacenter.commands import main as datacenter_main
from datacenter.errors import DeadlineError, NoSuchServiceError
from datacenter.sockets import SocketContext
from datacenter.sockets.ledger import Ledger, open_descriptors
from processes import kinds, settle

shop = Service("shop")
stall = Service("stall")

#: of a call while calls fail for good, and of one that must recover by itself
SHORT_S, LONG_S = 0.5, 8.0
#: CPU time that a process may use while calls fail: a part of a core, and what its work needs anyway
MOST_CORE, WORK_CPU_S = 0.3, 0.6


#: what a call or a registration must not end with because of one failure; that a thing could not be made may be said
NOT_RECOVERED = ("DeadlineError", "LostError", "BrokerUnreachableError", "TimeoutError", "NoSuchServiceError")


@shop.method(idempotent=True)
async def add(a: int, b: int) -> int:
    return a + b


@stall.method(idempotent=True)
async def double(a: int) -> int:
    return 2 * a


class Torture:
    """What a program in the process under torture is given."""

    def __init__(self, control: Control, broker: str, result: Path, *, for_good: bool) -> None:
        self.control = control
        self.broker = broker
        self.for_good = for_good
        self.call_s = SHORT_S if for_good else LONG_S
        self._result = result
        self._written = False
        self.outcome = ""
        self.wrong: list[str] = []

    def attempt(self, use: Callable[[], object]) -> None:
        """Runs `use` with calls failing: it works, or raises a typed error; nothing else, and without spinning."""
        began, cpu = time.monotonic(), _cpu_s()
        with self.control.armed():
            try:
                use()
                self.outcome = "works"
            except DatacenterError as error:
                self.failed(error)
        self._check_cpu(time.monotonic() - began, _cpu_s() - cpu)

    async def attempt_async(self, use: Callable[[], Any]) -> None:
        with self.control.armed():
            try:
                await use()
                self.outcome = "works"
            except DatacenterError as error:
                self.failed(error)

    def failed(self, error: DatacenterError) -> None:
        self.outcome = f"{type(error).__name__}: {error.message}"
        # Of one failure, a call that had begun must recover; only the making of things may say that it could not.
        if not self.for_good and self.outcome.startswith(NOT_RECOVERED):
            self.wrong.append(f"not recovered from one failure: {self.outcome}")

    def _check_cpu(self, seconds: float, cpu_s: float) -> None:
        if cpu_s > seconds * MOST_CORE + WORK_CPU_S:
            self.wrong.append(f"spin: {cpu_s:.2f} s of CPU in {seconds:.2f} s")

    def check_descriptors(self, before: Counter[str]) -> None:
        """Everything that was opened since is closed."""

        def left() -> str:
            now = kinds()
            return "" if now == before else f"leak: {dict(now - before)}, missing: {dict(before - now)}"

        if wrong := settle(left):
            self.wrong.append(wrong)
        if runtime._current is not None:
            self.wrong.append("leak: a runtime")

    def check_ledger(self, baseline: dict[int, str]) -> None:
        """While something is open: the ledger equals /proc, but for what was open before."""
        ledger = Ledger.open()
        try:
            if ledger.exact and (wrong := settle(lambda: ", ".join(ledger.unexplained(baseline)))):
                self.wrong.append(f"ledger: {wrong}")
        finally:
            ledger.close()

    def write(self) -> None:
        """Once: what comes later may be armed."""
        if self._written:
            return
        self._written = True
        self._result.write_text(json.dumps({"outcome": self.outcome, "wrong": self.wrong}))


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _call(broker: str, deadline_s: float) -> None:
    with Client(broker) as client:
        if client.call("shop.add", 20, 3, deadline_s=deadline_s) != 23:
            raise AssertionError("a wrong answer")


# --- in the process itself


def client_life(torture: Torture) -> None:
    """Make a client, call, close it; then again, with nothing failing."""
    before, baseline = kinds(), open_descriptors()
    torture.attempt(lambda: _call(torture.broker, torture.call_s))
    with Client(torture.broker) as client:
        if client.call("shop.add", 1, 2, deadline_s=LONG_S) != 3:
            torture.wrong.append("a wrong answer afterwards")
        torture.check_ledger(baseline)
    torture.check_descriptors(before)


def client_call(torture: Torture) -> None:
    """The first call of a client that is there: resolve, connect, call."""
    before = kinds()
    with Client(torture.broker) as client:
        with contextlib.suppress(NoSuchServiceError):
            client.call("nobody.there", deadline_s=LONG_S)
        torture.attempt(lambda: client.call("shop.add", 1, 2, deadline_s=torture.call_s))
        if client.call("shop.add", 1, 2, deadline_s=LONG_S) != 3:
            torture.wrong.append("a wrong answer afterwards")
    torture.check_descriptors(before)


def client_close(torture: Torture) -> None:
    before = kinds()
    client = Client(torture.broker)
    client.call("shop.add", 1, 2, deadline_s=LONG_S)
    torture.attempt(client.close)
    torture.check_descriptors(before)
    _call(torture.broker, LONG_S)


def client_exit(torture: Torture) -> None:
    """A client left open at the interpreter's exit."""
    client = Client(torture.broker)
    client.call("shop.add", 1, 2, deadline_s=LONG_S)
    torture.outcome = "works"
    torture.write()
    globals()["kept"] = client
    torture.control.arm()


def async_client_life(torture: Torture) -> None:
    async def main() -> None:
        async def use() -> None:
            async with AsyncClient(torture.broker) as client:
                await client.call("shop.add", 1, 2, deadline_s=torture.call_s)

        before = kinds()
        await torture.attempt_async(use)
        async with AsyncClient(torture.broker) as client:
            if await client.call("shop.add", 1, 2, deadline_s=LONG_S) != 3:
                torture.wrong.append("a wrong answer afterwards")
        await asyncio.to_thread(torture.check_descriptors, before)

    asyncio.run(main())


def forked_client(torture: Torture) -> None:
    """A child of a process with a client makes its own; its parent notices nothing."""
    before = kinds()
    with Client(torture.broker) as client:
        client.call("shop.add", 1, 2, deadline_s=LONG_S)
        child = os.fork()
        if child == 0:
            try:
                client_life(torture)
                torture.check_descriptors(before)
                torture.write()
            except BaseException:
                sys.excepthook(*sys.exc_info())
            finally:
                sys.stderr.flush()
                os._exit(0)
        os.waitpid(child, 0)
        client.call("shop.add", 1, 2, deadline_s=LONG_S)


def relay_life(torture: Torture) -> None:
    """Make a relay of the manager, let it connect to an instance, call through it, end it."""
    before, baseline = kinds(), open_descriptors()
    with SocketContext("relays") as context, _echo(context) as endpoint:
        manager = RelayManager(context)

        def use() -> None:
            relay = manager.get_or_create("echo")
            relay.set_instances([endpoint])
            _through(context, relay.endpoint, torture.call_s)
            manager.remove("echo", relay)

        try:
            torture.attempt(use)
            relay = manager.get_or_create("echo")
            relay.set_instances([endpoint])
            _through(context, relay.endpoint, LONG_S)
            torture.check_ledger(baseline)
        finally:
            manager.close()
    torture.check_descriptors(before)


@contextlib.contextmanager
def _echo(context: SocketContext) -> Iterator[str]:
    """A service at the wire, in a thread."""
    from relay_peers import EchoService

    service = EchoService(context)
    try:
        yield service.endpoint
    finally:
        service.close()


def _through(context: SocketContext, endpoint: str, deadline_s: float) -> None:
    from relay_peers import call_frame

    with context.socket(zmq.DEALER, owner="caller") as owned:
        owned.connect(endpoint)
        owned.raw.send(call_frame(1, b"x"))
        if not owned.raw.poll(int(deadline_s * 1000)):
            raise DeadlineError("no reply through the relay")
        owned.raw.recv()


def outage(torture: Torture) -> None:
    """Calls go on while the supervisor takes service and broker away, until it disarms; then one must work."""
    before = kinds()
    with Client(torture.broker) as client:
        client.call("shop.add", 1, 2, deadline_s=LONG_S)
        print("ready", flush=True)
        wait_until(lambda: torture.control.armed_pid, "armed", LONG_S)
        while torture.control.armed_pid:
            began = time.monotonic()
            with contextlib.suppress(DatacenterError):
                client.call("shop.add", 1, 2, deadline_s=SHORT_S)
            if time.monotonic() - began > SHORT_S + 1:
                torture.wrong.append(f"a call took {time.monotonic() - began:.1f} s")
            time.sleep(0.02)
        if client.call("shop.add", 1, 2, deadline_s=LONG_S) != 3:
            torture.wrong.append("a wrong answer afterwards")
        torture.outcome = "works"
    torture.check_descriptors(before)


# --- commands and their peers


def command(*words: str, control: Control | None = None) -> Callable[[], None]:
    """The command line, armed from its beginning if `control` is given."""

    def program() -> None:
        sys.argv = ["datacenter", *words]
        if control is not None:
            control.arm()
        datacenter_main()

    return program


def round_trip(broker: str, deadline_s: float, *, relay: bool = False) -> Callable[[], None]:
    """A service and a client of it, directly or through a relay. Exit code 0: it works; 10: a typed error."""

    async def main() -> None:
        async with asyncio.timeout(deadline_s + 5) if sys.version_info >= (3, 11) else contextlib.nullcontext():
            server = Server(stall, broker=broker)
            server.start()
            try:
                options = ClientOptions(route="relay" if relay else "direct")
                async with AsyncClient(broker, options=options) as client:
                    end = time.monotonic() + deadline_s
                    await asyncio.wait_for(server.registered(), deadline_s)
                    await client.call("stall.double", 2, deadline_s=max(0.1, end - time.monotonic()))
            finally:
                await server.close(drain_s=0.0)

    return lambda: _exit_typed(lambda: asyncio.run(main()))


def one_call(broker: str, target: str, arguments: tuple[int, ...], deadline_s: float) -> Callable[[], None]:
    """A client that calls once, when the service has come. Exit codes as of `round_trip`."""

    def use() -> None:
        end = time.monotonic() + deadline_s
        with Client(broker) as client:
            while True:
                try:
                    client.call(target, *arguments, deadline_s=max(0.1, end - time.monotonic()))
                    return
                except DatacenterError:
                    if time.monotonic() > end:
                        raise
                    threading.Event().wait(0.02)

    return lambda: _exit_typed(use)


def _exit_typed(use: Callable[[], object]) -> None:
    try:
        use()
    except (DatacenterError, asyncio.TimeoutError) as error:
        print(f"{type(error).__name__}: {error or 'not registered in time'}")
        sys.exit(10)


def in_process(body: Callable[[Torture], None], torture: Torture) -> Callable[[], None]:
    def program() -> None:
        body(torture)
        if torture.outcome or torture.wrong:
            torture.write()

    return program
