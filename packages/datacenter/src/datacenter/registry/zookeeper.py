"""A registry in ZooKeeper: what `SharedRegistry` decides is written there, and what is there is told to it.

    /path                          data: the registry's identity, made once
    /path/services/NAME            data: {"type": "rpc"}; stays while nobody serves it, so that callers wait
    /path/services/NAME/ID~BROKER.N   ephemeral, of the broker's session; data: the instance, as JSON
    /path/drains/ID~BROKER.N       the broker of that node is to have its instance end

A node is written once and never changed. So a folder's list of names is all there is to watch, and each list is read
in the same request that sets its next watch: nothing that happens between two looks is lost. After every reconnection
all lists are read again; of nodes that are known only the name.

What is known counts until `granted session × (1 − margin)` after the moment at which the last answered `sync` was sent.
A `sync` is answered by the leader, who ends sessions: a server that is cut off from it cannot confirm anything.

Lives in the broker's loop; kazoo's threads hand everything over to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import uuid
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final, cast

import msgspec

from datacenter import clock, options, runtime
from datacenter.errors import DatacenterError
from datacenter.registry.location import ZooKeeperLocation
from datacenter.registry.shared import Check, Forget, ForwardDrain, Node, Order, Publish, SharedRegistry, Withdraw
from datacenter.registry.state import Change
from datacenter.sockets import descriptor_limit
from datacenter.sockets.ledger import Ledger
from datacenter.wire import Instance, Method, ServiceType

log = logging.getLogger("datacenter.zookeeper")

#: requests to ZooKeeper that may be under way at once: enough to hide a round trip
MAX_REQUESTS: Final = 200
#: so many confirmations are asked for in one session
CONFIRMATIONS: Final = 8
#: what a session has open: its connection, and a socket pair
DESCRIPTORS: Final = 3


#: what a state of kazoo's means here
_WORDS: Final = {
    "CONNECTED": "connected",
    "SUSPENDED": "the connection is gone; answering from what is known until that may be wrong",
    "LOST": "the session is lost; sessions are sent away until the registry was read again",
}


class _Stored(msgspec.Struct):
    """An instance as it is stored."""

    type: ServiceType
    id: str
    endpoint: str
    methods: list[dict[str, Any]]
    pid: int
    host: str
    metadata: dict[str, str]
    max_message_bytes: int


class _Folder(msgspec.Struct):
    type: ServiceType


class ZooKeeperRegistry:
    """See the module. `start` and `close` in the broker's loop. Dead after a fork (kazoo_client.py).

    on_news(changes): there are changes and outcomes to be told, and orders to be fetched. on_drain(node): the instance
    behind this node of ours is to end.
    """

    def __init__(
        self,
        location: ZooKeeperLocation,
        registry: SharedRegistry,
        *,
        session_s: float,
        on_news: Callable[[list[Change]], None],
        on_drain: Callable[[str], None],
    ) -> None:
        self.location = location
        self.state = "connecting"
        self._registry = registry
        self._session_s = session_s
        self._on_news = on_news
        self._on_drain = on_drain
        self._services = f"{location.path}/services"
        self._drains = f"{location.path}/drains"
        self._life: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._dirty: set[str] = set()  # paths of folders that are to be read (again)
        self._reading: set[str] = set()
        self._known: dict[str, dict[str, Node]] = {}  # name -> nodes that were read: they never change
        self._types: dict[str, ServiceType] = {}
        self._writes: dict[str, Publish | Withdraw] = {}  # node -> the latest word
        self._writing: set[str] = set()
        self._closed = False
        self._names_lock = asyncio.Lock()  # two lists must not overtake each other
        self._watching: dict[str, Callable[[Any], None]] = {}
        self._ready = asyncio.Event()
        self._forgotten = asyncio.Event()  # the registry has forgotten all although the session lives
        self._counts = {"connections": 0, "requests": 0, "writes": 0, "suspended": 0}

    def start(self, ledger: Ledger) -> None:
        """Begins to connect. Raises MissingPackageError, DescriptorLimitError, DatacenterError (no thread)."""
        kazoo_client = _import()
        self._loop = asyncio.get_running_loop()
        self._slots = asyncio.Semaphore(MAX_REQUESTS)
        descriptor_limit.require(DESCRIPTORS, "the session with ZooKeeper")
        self._zk = kazoo_client.ZooKeeperClient(
            self.location.hosts, self._session_s, ledger, f"zookeeper {self.location.hosts}"
        )
        self._zk.add_listener(self._listener)
        with descriptor_limit.typed("the session with ZooKeeper"):
            self._zk.start_async()

    async def wait_ready(self, deadline_s: float | None = None) -> bool:
        """Waits until everything in ZooKeeper is known; False if it is not in time."""
        try:
            await asyncio.wait_for(self._ready.wait(), deadline_s)
        except asyncio.TimeoutError:
            return False
        return True

    def stop(self) -> None:
        """Nothing more is read, written or told. In the loop."""
        self._closed = True
        for task in (*self._tasks, *([self._life] if self._life else ())):
            task.cancel()

    def give_back(self) -> None:
        """Ends the session, with all nodes of this broker. Bounded; blocks; not in the loop."""
        if not self._zk.end(runtime.patience_s() / 2):
            log.warning("the session with %s was left to end by itself", self.location.text)

    def statistics(self) -> dict[str, Any]:
        """State and counts."""
        return {"registry": self.location.text, "state": self.state, "granted_s": self._zk.granted_s, **self._counts}

    def carry_out(self, orders: Iterable[Order]) -> None:
        """Writes and checks, as soon as there is a connection. To be called whenever the registry was used."""
        if self._ready.is_set() and not self._registry.synchronised:  # confirmed too late: to be read again
            log.warning("%s: not confirmed in time; sessions are sent away until it was read again", self.location.text)
            self._ready.clear()
            self._forgotten.set()
        for order in orders:
            if isinstance(order, Publish | Withdraw):
                self._writes[order.node] = order
                if order.node not in self._writing:
                    self._spawn(self._write, order.node)
            elif isinstance(order, Check):
                self._spawn(self._check, order.name)
            elif isinstance(order, ForwardDrain):
                self._spawn(self._make, f"{self._drains}/{order.node}", b"")
            elif isinstance(order, Forget):
                self._spawn(self._remove, f"{self._services}/{order.name}")

    # --- states of the session

    def _listener(self, state: str) -> None:
        # In kazoo's thread.
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._state_changed, str(state))

    def _state_changed(self, state: str) -> None:
        if self._closed:
            return
        first = self.state == "connecting" and state == "CONNECTED"
        log.log(logging.INFO if first else logging.WARNING, "%s: %s", self.location.text, _WORDS.get(state, state))
        self.state = state.lower()
        if self._life is not None:
            self._life.cancel()
            self._life = None
        if state == "CONNECTED":
            self._life = self._loop.create_task(self._live())
        elif state == "LOST":
            self._void()
        else:
            self._counts["suspended"] += 1

    def _void(self) -> None:
        """The session has ended, with all nodes of ours."""
        self._ready.clear()
        self._registry.confirmed_no_more()
        self._writes.clear()  # their nodes go with the session
        self._tell([])

    async def _live(self) -> None:
        """While connected: asks for confirmations, reads everything again, then writes what waits."""
        self._counts["connections"] += 1
        confirmed = asyncio.Event()
        confirming = self._loop.create_task(self._confirm(confirmed))
        try:
            while True:
                try:
                    await self._follow(confirmed)
                except _lost():
                    return
                except Exception:  # no permission there, most likely
                    log.exception("%s cannot be used; trying again", self.location.text)
                    await asyncio.sleep(1.0)
        finally:
            confirming.cancel()

    async def _follow(self, confirmed: asyncio.Event) -> None:
        await self._make(self.location.path, uuid.uuid4().hex.encode(), makepath=True)
        await asyncio.gather(self._make(self._services, b""), self._make(self._drains, b""))
        await confirmed.wait()
        while True:
            self._forgotten.clear()
            await self._synchronise()
            await self._forgotten.wait()

    async def _synchronise(self) -> None:
        identity, _ = await self._ask(self._zk.get_async, self.location.path)
        self._registry.identify(bytes(identity).decode(errors="replace"))
        generation = None
        while generation != self._registry.generation:
            generation = self._registry.generation
            await self._read_names()
            await asyncio.gather(*(self._read_name(name) for name in tuple(self._known)))
        self._registry.synchronised = True
        self._ready.set()
        self._tell([])
        self._touch(self._drains)
        for node in tuple(self._writes):
            if node not in self._writing:
                self._spawn(self._write, node)

    async def _confirm(self, confirmed: asyncio.Event) -> None:
        with contextlib.suppress(*_lost()):
            while True:
                sent = clock.now()
                await self._ask(self._zk.sync_async, self.location.path)
                self._registry.confirmed(sent + self._zk.granted_s * (1 - options.ZOOKEEPER_MARGIN))
                confirmed.set()
                await asyncio.sleep(self._zk.granted_s / CONFIRMATIONS)

    # --- reading

    def _touch(self, path: str) -> None:
        """This folder is to be read: now, or again when the reading that is under way has ended."""
        self._dirty.add(path)
        if path not in self._reading:
            self._reading.add(path)
            self._spawn(self._read, path)

    async def _read(self, path: str) -> None:
        try:
            while path in self._dirty:
                self._dirty.discard(path)
                if path == self._services:
                    for name in await self._read_names():
                        self._touch(f"{self._services}/{name}")
                elif path == self._drains:
                    await self._read_drains()
                else:
                    await self._read_name(path.rpartition("/")[2])
        except _lost():
            pass  # all is read again at the next connection
        finally:
            self._reading.discard(path)

    def _watcher(self, path: str) -> Callable[[Any], None]:
        """Always the same for a path: kazoo keeps a set of them until one is called."""

        def changed(event: Any) -> None:
            if event.type != "NONE":  # that one says that the connection has ended
                with contextlib.suppress(RuntimeError):
                    self._loop.call_soon_threadsafe(self._touch_if_open, path)

        return self._watching.setdefault(path, changed)

    def _touch_if_open(self, path: str) -> None:
        if not self._closed:
            self._touch(path)

    async def _read_names(self) -> list[str]:
        """Reads which names there are; returns those that are new."""
        async with self._names_lock:
            names = await self._ask(self._zk.get_children_async, self._services, self._watcher(self._services))
            present = set(names)
            new = [name for name in names if name not in self._known]
            for name in self._known.keys() - present:
                del self._known[name]
                self._types.pop(name, None)
                self._watching.pop(f"{self._services}/{name}", None)
            self._known.update({name: {} for name in new})
            self._tell(self._registry.names(present))
            return new

    async def _read_name(self, name: str) -> None:
        folder = f"{self._services}/{name}"
        try:
            if name not in self._types:
                data, _ = await self._ask(self._zk.get_async, folder)
                self._types[name] = _folder_type(data)
            children, stat = await self._ask(
                self._zk.get_children_async, folder, self._watcher(folder), include_data=True
            )
        except _no_node():
            self._touch(self._services)
            return
        known = self._known.setdefault(name, {})
        found = await asyncio.gather(*(self._read_node(folder, child) for child in children if child not in known))
        nodes = {node: known[node] for node in children if node in known}
        nodes.update({each.node: each for each in found if each is not None})
        self._known[name] = nodes
        self._tell(self._registry.seen(name, self._types[name], stat.pzxid, nodes.values()))

    async def _read_node(self, folder: str, node: str) -> Node | None:
        try:
            data, stat = await self._ask(self._zk.get_async, f"{folder}/{node}")
            stored = msgspec.json.decode(data, type=_Stored)
        except _no_node():
            return None  # gone since; the watch tells
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            log.warning("%s/%s is no registration: %s", folder, node, error)
            return None
        return Node(node, stored.type, _instance(stored, stat.czxid))

    async def _check(self, name: str) -> None:
        """Looks for a name with all that was written before: `sync`, then one look."""
        path = f"{self._services}/{name}"
        with contextlib.suppress(*_lost()):
            await self._ask(self._zk.sync_async, self.location.path)
            if await self._ask(self._zk.exists_async, path) is None:
                self._tell(self._registry.absent(name))
            else:
                self._known.setdefault(name, {})
                self._touch(path)

    async def _read_drains(self) -> None:
        for node in await self._ask(self._zk.get_children_async, self._drains, self._watcher(self._drains)):
            mine = self._registry.behind(node) is not None
            if mine:
                self._on_drain(node)
            if mine or not self._registry.has_node(node):
                await self._remove(f"{self._drains}/{node}")

    # --- writing

    async def _write(self, node: str) -> None:
        """Carries out the latest word for a node. What the end of a connection interrupts waits for the next one."""
        if node in self._writing:
            return
        self._writing.add(node)
        try:
            while (order := self._writes.get(node)) is not None and self._ready.is_set():
                if isinstance(order, Publish):
                    await self._publish(order)
                else:
                    await self._remove(f"{self._services}/{order.name}/{node}")
                self._counts["writes"] += 1
                if self._writes.get(node) is order:
                    del self._writes[node]
        except _lost():
            pass
        finally:
            self._writing.discard(node)

    async def _publish(self, order: Publish) -> None:
        folder = f"{self._services}/{order.name}"
        path = f"{folder}/{order.node}"
        data = msgspec.json.encode(_stored(order.type, order.instance))
        try:
            await self._make(path, data, ephemeral=True)
        except _no_node():
            await self._make(folder, msgspec.json.encode(_Folder(order.type)))
            await self._make(path, data, ephemeral=True)
        if self._types.get(order.name) not in (None, order.type):  # nobody served it: the name is free for another type
            await self._ask(self._zk.set_async, folder, msgspec.json.encode(_Folder(order.type)))
            self._types[order.name] = order.type
        self._known.setdefault(order.name, {})
        self._touch(folder)

    async def _make(self, path: str, data: bytes, **how: bool) -> None:
        """Makes a node; one that is there already stays as it is."""
        with contextlib.suppress(_exists()):
            await self._ask(self._zk.create_async, path, data, **how)

    async def _remove(self, path: str) -> None:
        with contextlib.suppress(_no_node(), _not_empty()):
            await self._ask(self._zk.delete_async, path)

    # --- kazoo

    def _tell(self, changes: list[Change]) -> None:
        if not self._closed:
            self._on_news(changes)

    def _spawn(self, work: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> None:
        async def run() -> None:
            try:
                await work(*args)
            except _lost():
                pass
            except Exception:
                log.exception("work on %s failed", self.location.text)

        task = self._loop.create_task(run())
        self._tasks.add(task)  # a loop keeps only weak references
        task.add_done_callback(self._tasks.discard)

    async def _ask(self, function: Callable[..., Any], *args: Any, **keywords: Any) -> Any:
        """One request of kazoo's. Raises kazoo's exceptions; those of `_lost()` when the connection ends first."""
        async with self._slots:
            self._counts["requests"] += 1
            answer = self._loop.create_future()
            function(*args, **keywords).rawlink(functools.partial(self._answered, answer))
            return await answer

    def _answered(self, future: asyncio.Future[Any], result: Any) -> None:
        # In a thread of kazoo's.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(_take, future, result)


def _take(future: asyncio.Future[Any], result: Any) -> None:
    if future.done():
        return
    if result.exception is None:
        future.set_result(result.value)
    else:
        future.set_exception(result.exception)


def _folder_type(data: bytes) -> ServiceType:
    try:
        return msgspec.json.decode(data, type=_Folder).type
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return "rpc"


def _stored(type_: ServiceType, instance: Instance) -> _Stored:
    methods = [msgspec.structs.asdict(method) for method in instance.methods]
    return _Stored(
        type_,
        instance.id,
        instance.endpoint,
        methods,
        instance.pid,
        instance.host,
        instance.metadata,
        instance.max_message_bytes,
    )


def _instance(stored: _Stored, epoch: int) -> Instance:
    return Instance(
        stored.id,
        stored.endpoint,
        tuple(msgspec.convert(tuple(method.values()), Method) for method in stored.methods),
        stored.pid,
        stored.host,
        epoch,
        stored.metadata,
        stored.max_message_bytes,
    )


def _import() -> Any:
    try:
        from datacenter.registry import kazoo_client
    except ImportError as error:
        raise DatacenterError(
            f"a registry in ZooKeeper needs the package kazoo ({error})",
            "Install it: pip install 'datacenter[zookeeper]'.",
        ) from None
    return kazoo_client


# kazoo's exceptions, which are known once it was imported


def _lost() -> tuple[type[Exception], ...]:
    """The connection or the session ended."""
    from kazoo import exceptions

    return cast(
        "tuple[type[Exception], ...]",
        (exceptions.ConnectionLoss, exceptions.SessionExpiredError, exceptions.ConnectionClosedError),
    )


def _no_node() -> type[Exception]:
    from kazoo.exceptions import NoNodeError

    return cast("type[Exception]", NoNodeError)


def _exists() -> type[Exception]:
    from kazoo.exceptions import NodeExistsError

    return cast("type[Exception]", NodeExistsError)


def _not_empty() -> type[Exception]:
    from kazoo.exceptions import NotEmptyError

    return cast("type[Exception]", NotEmptyError)
