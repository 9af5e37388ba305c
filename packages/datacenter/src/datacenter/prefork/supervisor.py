"""The supervisor: keeps a family of processes alive (workers, a watcher, a fork server), and ends them together.

    supervisor = Supervisor(plan, places=4)
    await supervisor.run(stop)

What is to be done is decided elsewhere (pool.py, book.py); here it is carried out: pipes, pidfds, signals. It connects
to nothing and makes no ZeroMQ socket. Everybody else ends when it ends, even by SIGKILL: each holds the one other end
of a pipe to it, which the kernel closes then.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from msgspec import Raw

from datacenter import options
from datacenter.errors import CATALOGUE, DatacenterError
from datacenter.prefork import messages
from datacenter.prefork.book import Book, ForWorkers
from datacenter.prefork.children import Child, said_of
from datacenter.prefork.fork_link import adopt_orphans, pair, reap_strangers
from datacenter.prefork.fork_servers import ForkServers
from datacenter.prefork.pool import Action, End, Member, Pool, PoolOptions, Start
from datacenter.prefork.statistics import Totals
from datacenter.sockets import descriptor_limit
from datacenter.sockets.ledger import Ledger

log = logging.getLogger("datacenter.prefork")
TICK_S: Final = 0.5


@dataclass(frozen=True)
class Plan:
    """What a family consists of. Functions are "module:name"; fork_server.py says how they are called.

    prepare: called once in each fork server with `arguments`; imports what workers need. watcher: "" for none.
    patience_s: how long a worker that is asked to end may take by itself. arguments: anything MessagePack carries.
    """

    prepare: str
    worker: str
    watcher: str
    arguments: Any
    patience_s: float
    pool: PoolOptions = field(default_factory=PoolOptions)


class Supervisor:
    """See the module. `on_ready(endpoints)` each time that all places are filled with the present code.

    One thread: the running loop's.
    """

    def __init__(self, plan: Plan, *, places: int, on_ready: Callable[[list[str]], None] = lambda _: None) -> None:
        self._plan = plan
        self._places = places
        self._on_ready = on_ready
        self._book = Book()
        self._totals = Totals()
        self._children: dict[int, Child] = {}
        self._endpoints: dict[int, str] = {}
        self._watcher: Child | None = None
        self._timer: asyncio.Handle | None = None
        self._is_ready = False
        self._said: set[str] = set()  # of what would be said for each worker
        self._ever_served = False
        self._cannot_begin: DatacenterError | None = None  # why the first workers cannot: nor will others

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set, all workers were drained, or the task is cancelled (then it hurries).

        Raises what the first preparation raised (NotServableError, …), or the first workers, if none ever served.
        """
        self._loop = asyncio.get_running_loop()
        self._ledger = Ledger.open()
        self._changed = asyncio.Event()
        self._failure: DatacenterError | None = None
        now = self._loop.time()
        self._pool = Pool(self._places, patience_s=self._plan.patience_s, now=now, options=self._plan.pool)
        self._watchers = Pool(1 if self._plan.watcher else 0, patience_s=0.0, now=now, options=self._plan.pool)
        guard_s = self._plan.patience_s + options.END_MARGIN_S
        arguments = Raw(messages.encode(self._plan.arguments))
        prepare = messages.Prepare(self._plan.prepare, arguments, guard_s)
        self._fork_servers = ForkServers(prepare, self, self._ledger)
        adopt_orphans()
        self._stop = stop
        told = asyncio.ensure_future(stop.wait())
        told.add_done_callback(lambda _: self._changed.set())
        try:
            self._tick()
            await self._until(lambda: stop.is_set() or self._pool.closed or bool(self._failure or self._cannot_begin))
            if self._failure is not None:
                raise self._failure
            await self._end()
            if self._cannot_begin is not None:
                raise self._cannot_begin
        finally:
            told.cancel()
            self._close()

    def reload(self) -> None:
        """Replaces the code: a new fork server imports it, then each worker is replaced when its successor is ready. If
        it cannot be imported, nothing changes.
        """
        if not self._pool.stopping:
            self._fork_servers.reload()

    def statistics(self) -> dict[str, Any]:
        """The family as one: who lives, and the sums of what the workers count."""
        workers = [
            {
                "worker": member.place + 1,
                "pid": self._children[number].pid,
                "state": member.state,
                "generation": member.generation,
                "endpoint": self._endpoints.get(number, ""),
                **self._totals.of(number),
            }
            for number, member in self._by_place()
            if number in self._children
        ]
        return {
            "workers": workers,
            "total": self._totals.sums(),
            "ended": self._totals.of_ended(),
            "supervisor": os.getpid(),
            "watcher": None if self._watcher is None else self._watcher.pid,
            "fork_server": self._fork_servers.pid,
            "session": self._book.session.state,
            "restarts": self._pool.restarts,
            "watcher_restarts": self._watchers.restarts,
            "fork_server_restarts": self._fork_servers.restarts,
            "reloads": self._fork_servers.reloads,
        }

    def _by_place(self) -> list[tuple[int, Member]]:
        return sorted(self._pool.members.items(), key=lambda item: (item[1].place, item[0]))

    def __repr__(self) -> str:
        return f"<Supervisor {self._pool!r}>"

    # --- its own life

    async def _until(self, condition: Callable[[], bool]) -> None:
        """Waits until `condition()`; it is looked at whenever something has happened."""
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    async def _end(self) -> None:
        """All workers in order, then the watcher (so that each can leave the registry), then the fork server."""
        try:
            self._act(self._pool.stop(self._loop.time()))
            self._fork_servers.drop_waiting(self._plan.worker)
            self._look_soon()
            await self._until(lambda: not self._pool.members)
        except asyncio.CancelledError:
            self._act(self._pool.stop(self._loop.time(), urgent=True))
            self._look_soon()
            await self._until(lambda: not self._pool.members)
        self._act_watcher(self._watchers.stop(self._loop.time()))
        self._fork_servers.drop_waiting(self._plan.watcher)
        self._look_soon()
        await self._until(lambda: not self._watchers.members)

    def _close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for child in (*self._children.values(), *([] if self._watcher is None else [self._watcher])):
            child.close()  # also those that were never born: their pipes would be heard to end
        self._fork_servers.close()
        self._ledger.close()

    def _tick(self) -> None:
        """Does what is due, and comes again when something will be, whatever goes wrong here."""
        now = self._loop.time()
        self._timer = self._loop.call_later(TICK_S, self._tick)
        self._fork_servers.tick(now)
        self._act(self._pool.due(now))
        self._act_watcher(self._watchers.due(now))
        self._look_for_silent(now)
        self._reap_strangers()
        self._look_whether_ready()
        self._changed.set()
        deadlines = [each.next_deadline() for each in (self._fork_servers, self._pool, self._watchers)]
        next_s = min([TICK_S, *(max(0.0, at - now) for at in deadlines if at is not None)])
        self._timer.cancel()
        self._timer = self._loop.call_later(next_s, self._tick)

    def _look_soon(self) -> None:
        """Something has happened."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_soon(self._tick)

    def _look_whether_ready(self) -> None:
        was_ready, self._is_ready = self._is_ready, self._pool.all_ready
        if self._is_ready and not was_ready and not self._pool.closed and not self._stop.is_set():
            ready = [number for number, member in self._by_place() if member.state == "ready"]
            self._on_ready([self._endpoints[number] for number in ready if number in self._endpoints])

    def _look_for_silent(self, now: float) -> None:
        for number, child in self._children.items():
            member = self._pool.members.get(number)
            if member is None or not child.pid or member.state not in ("serving", "ready"):
                continue
            silent_s = now - child.heard_at
            if silent_s > options.ALIVE_S * options.MISSED_HEARTBEATS:
                self._tell_watcher(*self._book.silent(number))
            if silent_s > options.STUCK_S:
                log.warning("%s (pid %d) was silent for %.0f s; it is killed", child.title, child.pid, silent_s)
                child.heard_at = now
                child.kill()
        watcher = self._watcher
        works = any(member.state == "serving" for member in self._watchers.members.values())
        if watcher is not None and works and now - watcher.heard_at > options.WATCHER_SILENT_S:
            log.warning("the watcher (pid %d) is silent; it is killed", watcher.pid)
            watcher.heard_at = now  # it takes a moment to end
            watcher.kill()

    # --- what fork servers tell

    def everybody(self) -> list[Child]:
        watcher = [] if self._watcher is None else [self._watcher]
        return [child for child in (*self._children.values(), *watcher) if child.pidfd >= 0]

    def not_prepared(self, error: DatacenterError) -> None:
        self._failure = error
        self._look_soon()

    def renewed(self) -> None:
        log.info("the new code is imported; workers are replaced one by one")
        self._pool.renew(self._loop.time())
        self._is_ready = False
        self._look_soon()

    def not_forked(self, message: messages.NotForked) -> None:
        log.error("a process could not be forked: %s; it is tried again", message.reason)
        # Its pipe ends with the fork server's copy of it: that is where it is taken out of the books.

    # --- processes

    def _born(self, child: Child, pid: int) -> bool:
        try:
            child.born(pid)
        except OSError as error:  # its end would not be noticed: it must not live, and ends with its pipe
            log.error("%s (pid %d) cannot be watched over: %s; another one is tried", child.title, pid, error)
            child.close()
            return False
        self._fork_servers.guard(child)
        return True

    def _reap_strangers(self) -> None:
        """Orphans of what the workers started come to us, as to init. Not while a process of ours has not said its
        number.
        """
        family = [*self._children.values(), *([] if self._watcher is None else [self._watcher])]
        if all(child.pid for child in family):
            reap_strangers({*(child.pid for child in family), *self._fork_servers.pids})

    # --- workers

    def _act(self, actions: list[Action]) -> None:
        for action in actions:
            child = self._children.get(action.number)
            if isinstance(action, Start):
                self._start_worker(action)
            elif child is None:
                continue
            elif isinstance(action, End):
                child.send(messages.End(action.urgent))
            elif child.kill():
                log.warning("%s (pid %d) %s; it is killed", child.title, child.pid, action.why)
            else:
                self._never_born(action.number, child)

    def _start_worker(self, start: Start) -> None:
        number, title = start.number, f"worker-{start.place + 1}"
        try:
            with descriptor_limit.typed(title):
                ours, theirs = pair()
        except DatacenterError as error:
            log.error("no %s: %s; it is tried again", title, error)
            self._pool.ended(self._loop.time(), number)
            return
        self._children[number] = Child(
            ours,
            messages.from_worker,
            title,
            ledger=self._ledger,
            on_message=functools.partial(self._worker_says, number),
            on_pipe_end=functools.partial(self._worker_leaves, number),
            on_exit=functools.partial(self._worker_ended, number),
        )
        self._fork_servers.fork(messages.Fork(number, self._plan.worker, title), theirs)

    def _worker_says(self, number: int, message: messages.FromWorker) -> None:
        now = self._loop.time()
        child = self._children[number]
        self._tell_watcher(*self._book.heard(number))
        match message:
            case messages.Started():
                if not self._born(child, message.pid):
                    self._worker_ended(number, None)
                    return
            case messages.NotPrepared():
                self._cannot(child, message)
            case messages.Serving():
                self._ever_served = True
                self._endpoints[number] = message.endpoint
                self._pool.serving(now, number)
            case messages.Ready():
                self._act(self._pool.ready(now, number))
                self._look_soon()
            case messages.Retired():
                self._pool.retired(number)
            case messages.Statistics():
                self._totals.take(number, message)
            case messages.AskFamily():
                child.send(messages.Family(message.request, self.statistics()))
        for_watcher, for_workers = self._book.from_worker(number, message)
        self._tell_watcher(*for_watcher)
        self._tell_workers(for_workers)

    def _cannot(self, child: Child, message: messages.NotPrepared) -> None:
        """It cannot begin. If a worker ever could, that may pass, or is the fault of newer code: others are tried."""
        error = CATALOGUE.get(message.code, DatacenterError)(message.message, message.hint)
        if self._ever_served:
            log.error("%s: %s", child.title, error)
        elif self._cannot_begin is None:
            self._cannot_begin = error
            self._look_soon()

    def _worker_leaves(self, number: int) -> None:
        child = self._children[number]
        if child.pid:
            self._pool.leaving(self._loop.time(), number)
            self._look_soon()
        else:
            self._never_born(number, child)

    def _never_born(self, number: int, child: Child) -> None:
        child.close()
        self._worker_ended(number, None)

    def _worker_ended(self, number: int, status: int | None) -> None:
        child = self._children.pop(number)
        member = self._pool.members.get(number)
        if self._cannot_begin is None and member is not None and (status or member.state != "ending"):
            level = logging.WARNING if status or not child.pid else logging.INFO
            log.log(level, "%s (pid %d) %s", child.title, child.pid, said_of(status))
        self._endpoints.pop(number, None)
        self._totals.ended(number)
        self._tell_watcher(*self._book.ended(number))
        self._pool.ended(self._loop.time(), number)
        self._look_soon()

    def _tell_workers(self, told: ForWorkers) -> None:
        for number, message in told:
            child = self._children.get(number)
            if child is not None:
                child.send(message)

    # --- the watcher

    def _act_watcher(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Start):
                self._start_watcher(action.number)
            elif self._watcher is None:
                continue
            elif isinstance(action, End):
                self._watcher.send(messages.End(action.urgent))
            elif self._watcher.kill():
                log.warning("the watcher (pid %d) %s; it is killed", self._watcher.pid, action.why)
            else:
                self._watcher_leaves(action.number)

    def _start_watcher(self, number: int) -> None:
        try:
            with descriptor_limit.typed("the watcher"):
                ours, theirs = pair()
        except DatacenterError as error:
            log.error("no watcher: %s; it is tried again", error)
            self._watchers.ended(self._loop.time(), number)
            return
        self._watcher = Child(
            ours,
            messages.from_watcher,
            "watcher",
            ledger=self._ledger,
            on_message=functools.partial(self._watcher_says, number),
            on_pipe_end=functools.partial(self._watcher_leaves, number),
            on_exit=functools.partial(self._watcher_ended, number),
        )
        self._fork_servers.fork(messages.Fork(0, self._plan.watcher, "watcher"), theirs)

    def _watcher_says(self, number: int, message: messages.FromWatcher) -> None:
        assert self._watcher is not None
        match message:
            case messages.Started():
                if self._born(self._watcher, message.pid):
                    self._tell_watcher(*self._book.replay())
                else:
                    self._watcher_ended(number, None)
            case messages.NotPrepared():
                self._cannot(self._watcher, message)
            case messages.Serving():
                self._watchers.serving(self._loop.time(), number)
            case messages.Refused():
                self._say_once(message)
                self._tell_workers(self._book.from_watcher(message))
            case messages.SessionState():
                if message.state == "connected":
                    self._said.clear()
                self._book.from_watcher(message)
                self._tell_workers([(each, message) for each in self._children])
            case _:
                self._tell_workers(self._book.from_watcher(message))

    def _say_once(self, refused: messages.Refused) -> None:
        """Why somebody is not registered: once for all workers, and again after the next connection."""
        if refused.message not in self._said:
            self._said.add(refused.message)
            log.warning("not registered: %s; it is tried again and again", refused.message)

    def _watcher_leaves(self, number: int) -> None:
        assert self._watcher is not None
        if self._watcher.pid:
            self._watchers.leaving(self._loop.time(), number)
            self._look_soon()
        else:
            self._watcher.close()
            self._watcher_ended(number, None)

    def _watcher_ended(self, number: int, status: int | None) -> None:
        assert self._watcher is not None
        if not self._watchers.stopping and self._cannot_begin is None:
            log.warning("the watcher (pid %d) %s; another one takes over", self._watcher.pid, said_of(status))
        self._watcher = None
        self._watchers.ended(self._loop.time(), number)
        self._watcher_says_lost()
        self._look_soon()

    def _watcher_says_lost(self) -> None:
        lost = messages.SessionState("lost", "the watcher has ended")
        self._book.from_watcher(lost)
        self._tell_workers([(each, lost) for each in self._children])

    def _tell_watcher(self, *told: messages.ToWatcher) -> None:
        """What is said before it has started is said in the replay."""
        if self._watcher is not None and self._watcher.pid:
            for message in told:
                self._watcher.send(message)
