"""The workers of `datacenter proxy`: each listens for itself and learns from the watcher, by way of the supervisor,
which backends live. No worker has a connection to the registry, and none inherits one: see datacenter.prefork.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import socket
from collections.abc import Iterator
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from datacenter.errors import AddressError, AddressInUseError, DatacenterError, InsecureAddressError
from datacenter.gateway.front import Balance, Front, check_installed
from datacenter.gateway.options import GatewayOptions
from datacenter.main_loop import run, set_up_logging
from datacenter.prefork import messages
from datacenter.prefork.worker import Worker
from datacenter.registry.location import of_family
from datacenter.sockets import fork
from datacenter.sockets.addresses import each_for_connect, for_bind, for_connect
from datacenter.sockets.ledger import Ledger
from datacenter.wire import Resolution

log = logging.getLogger("datacenter.gateway")
OWNER: Final = "gateway listener"


class Settings(Struct):
    """A family's arguments. `broker`, `insecure` and `registry` are the watcher's, too. `host` and `port`: where all
    listen.
    """

    broker: str
    service: str
    host: str
    port: int
    balance: Balance
    options: dict[str, Any]
    insecure: bool = False
    verbose: int = 0
    registry: str = ""


@contextlib.contextmanager
def reserve(listen: str, *, broker: str, insecure: bool, registry: str = "") -> Iterator[socket.socket]:
    """A socket that is bound to HOST:PORT and does not listen: nobody else gets the port while it is open, and workers
    can share it. Port 0: a free one.

    Raises AddressError, AddressInUseError, InsecureAddressError.
    """
    address = for_bind(listen if "://" in listen else f"tcp://{listen}")
    if address.scheme != "tcp":
        raise AddressError(f"{listen!r} is no TCP address", "Write --listen HOST:PORT, for instance 127.0.0.1:6400.")
    if registry:
        of_family(registry, insecure=insecure)
    brokers = [] if registry else [for_connect(each) for each in each_for_connect(broker).split(",")]
    for checked, verb in ((address, "listen at"), *((each, "connect to") for each in brokers)):
        if not checked.local and not insecure:
            raise InsecureAddressError(
                f"the gateway may not {verb} {checked.text}: other machines can reach it, and nothing protects it",
                "Use 127.0.0.1, or say --insecure where the network is trusted.",
            )
    host, _, port = address.text.removeprefix("tcp://").rpartition(":")
    place = ("" if host == "*" else host.strip("[]"), 0 if port == "*" else int(port))
    taken = contextlib.ExitStack()
    try:
        # First without sharing: somebody else's gateway would share its port, and take half of the clients.
        with _bound(place, shared=False) as alone:
            place = (place[0], alone.getsockname()[1])
        taken.enter_context(_only_one(place))
        reserved = taken.enter_context(_bound(place, shared=True))
    except OSError as error:
        taken.close()
        problem = error.strerror or str(error)
        kind = AddressInUseError if "in use" in problem else AddressError
        raise kind(
            f"cannot listen at {listen}: {problem}",
            f"See who holds it: leakline holders :{place[1]}; or take another: --listen HOST:PORT.",
        ) from None
    with taken:
        yield reserved


def _only_one(place: tuple[str, int]) -> socket.socket:
    """A name that one gateway can have at a time, and that the kernel takes back. Two sockets with SO_REUSEADDR may be
    bound to one port as long as neither listens, and a gateway listens only once the registry has spoken.
    """
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        made.bind(f"\0datacenter gateway {place[0]}:{place[1]}")
    except BaseException:
        made.close()
        raise
    return made


def _bound(place: tuple[str, int], *, shared: bool) -> socket.socket:
    made = socket.socket(socket.AF_INET6 if ":" in place[0] else socket.AF_INET, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(shared))
        made.bind(place)
    except BaseException:
        made.close()
        raise
    return made


def prepare(arguments: Raw) -> None:
    """In the fork server: imports what the workers need."""
    settings = msgspec.msgpack.decode(arguments, type=Settings)
    set_up_logging(settings.verbose)
    check_installed(settings.balance)
    if settings.balance == "redis-keys":
        import datacenter.gateway.redis_client
        import datacenter.gateway.redis_shards  # noqa: F401


def main(end: socket.socket, arguments: Raw) -> None:
    """The entry of a worker."""
    settings = msgspec.msgpack.decode(arguments, type=Settings)
    run(functools.partial(work, end, settings))


async def work(end: socket.socket, settings: Settings, stop: asyncio.Event) -> None:
    """A worker's life in its loop, until `stop` or its supervisor ends it. Closes `end`."""
    task = asyncio.current_task()
    assert task is not None
    hurry = functools.partial(asyncio.get_running_loop().call_soon, task.cancel)

    def to_end(urgent: bool) -> None:
        stop.set()
        if urgent:
            hurry()

    options = GatewayOptions(**settings.options)
    ledger = Ledger.open()
    worker = Worker(end, ledger=ledger, on_end=to_end, statistics=lambda: _counted(front), patience_s=options.drain_s)
    front: Front | None = None
    try:
        with fork.still():
            listener = _bound((settings.host, settings.port), shared=True)
            ledger.register(listener.fileno(), "tcp", OWNER)
        number = listener.fileno()
        front = Front(listener, settings.balance, options, ledger=ledger)
        told = asyncio.Event()
        shown = f"[{settings.host}]" if ":" in settings.host else settings.host or "0.0.0.0"
        # Before the registry's first word, which may take any time: else it would be killed as one that cannot start.
        worker.say(messages.Serving(f"tcp://{shown}:{settings.port}"))
        worker.watch(settings.service, "foreign", functools.partial(_news, front, told))
        try:
            if await _first(told, stop):
                await front.prepared()
                await front.start()
                worker.say(messages.Ready())
                await stop.wait()
                await front.drain()
        finally:
            ledger.forget(number)
            await front.abort()
    finally:
        await worker.close()
        ledger.close()


async def _first(told: asyncio.Event, stop: asyncio.Event) -> bool:
    """Waits until the registry has said something; False if it is to end before."""
    waiting = [asyncio.ensure_future(event.wait()) for event in (told, stop)]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in waiting:
            each.cancel()
    return told.is_set() and not stop.is_set()


def _news(front: Front, told: asyncio.Event, news: Resolution | DatacenterError) -> None:
    if isinstance(news, DatacenterError):
        log.error("%s", news)
        return
    if news.state == "settling":  # the broker has just started: its instances are on their way back
        return
    front.update(news.instances)
    told.set()


def _counted(front: Front | None) -> messages.Statistics | None:
    return None if front is None else messages.Statistics(dict(front.counts), {"clients": front.clients})
