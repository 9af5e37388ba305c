"""Keeps one prepared fork server, replaces it when it dies, and by another one with newer code when asked to.

What is to be forked while there is none waits. Workers live on whatever becomes of the one that made them.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import Protocol

from datacenter import options
from datacenter.backoff import Backoff
from datacenter.errors import CATALOGUE, DatacenterError, NotServableError
from datacenter.prefork import messages
from datacenter.prefork.children import Child, said_of
from datacenter.prefork.fork_link import ForkServerLink
from datacenter.sockets import descriptor_limit
from datacenter.sockets.ledger import Ledger

log = logging.getLogger("datacenter.prefork")


class Owner(Protocol):
    """What fork servers tell their supervisor."""

    def everybody(self) -> list[Child]:
        """All processes that a fork server must guard."""

    def not_forked(self, message: messages.NotForked) -> None: ...

    def not_prepared(self, error: DatacenterError) -> None:
        """The very first preparation failed: there is no family."""

    def renewed(self) -> None:
        """There is a fork server with newer code."""


class ForkServers:
    """See the module. Call `tick` when `next_deadline` says so. One thread: that of the running loop."""

    def __init__(self, prepare: messages.Prepare, owner: Owner, ledger: Ledger) -> None:
        self.restarts = 0
        self.reloads = 0
        self._prepare = prepare
        self._owner = owner
        self._ledger = ledger
        self._loop = asyncio.get_running_loop()
        self._backoff = Backoff(options.RESTART_MIN_S, options.RESTART_MAX_S)
        self._current: ForkServerLink | None = None
        self._candidate: ForkServerLink | None = None  # of a reload, until it is prepared
        self._again = False
        self._leaving: list[ForkServerLink] = []
        self._start_at: float | None = self._loop.time()
        self._give_up_at: float | None = None
        self._ever_prepared = False
        self._waiting: list[tuple[messages.Fork, socket.socket]] = []

    @property
    def pids(self) -> list[int]:
        """Of all that have not been reaped."""
        return [link.pid for link in (self._current, self._candidate, *self._leaving) if link is not None]

    @property
    def pid(self) -> int | None:
        """Of the one that forks now."""
        return None if self._current is None else self._current.pid

    def fork(self, message: messages.Fork, pipe: socket.socket) -> None:
        """Has a process made that holds `pipe`, as soon as a fork server is prepared: now, most often. Owns `pipe`."""
        if self._current is not None and self._current.prepared:
            with pipe:
                self._current.tell(message, pipe.fileno())
        else:
            self._waiting.append((message, pipe))

    def drop_waiting(self, function: str) -> None:
        """Forgets such processes that no fork server was asked for yet: their pipes end, as if they had ended."""
        for message, pipe in self._waiting:
            if message.function == function:
                pipe.close()
        self._waiting = [(message, pipe) for message, pipe in self._waiting if message.function != function]

    def guard(self, child: Child) -> None:
        """Has the fork server kill `child` should it outlive the supervisor."""
        if self._current is not None and self._current.prepared:
            self._current.tell(messages.Guard(), child.pidfd)

    def reload(self) -> None:
        """Prepares another fork server, which imports the code anew. If it cannot, nothing changes.

        While one is being prepared: once more when that is over.
        """
        self._again = self._candidate is not None  # it may have read the code before this was asked for
        if self._again:
            return
        try:
            self._candidate = self._start()
        except (OSError, DatacenterError) as error:
            log.error("no reload, the old code goes on: %s", error)

    def tick(self, now: float) -> None:
        """Starts one that is due, ends one that does not become ready."""
        if self._start_at is not None and self._start_at <= now:
            self._start_at = None
            try:
                self._current = self._start()
                self._give_up_at = now + options.START_DEADLINE_S
            except (OSError, DatacenterError) as error:
                log.error("no fork server: %s; it is tried again", error)
                self._start_at = now + self._backoff.next()
        if self._give_up_at is not None and self._give_up_at <= now:
            self._give_up_at = None
            log.error("the fork server has not imported the code within %.0f s; it is killed", options.START_DEADLINE_S)
            if self._current is not None:
                self._current.kill()

    def next_deadline(self) -> float | None:
        return min((at for at in (self._start_at, self._give_up_at) if at is not None), default=None)

    def close(self) -> None:
        """Lets go of all: they end. What was not forked yet never will be."""
        for link in (self._current, self._candidate, *self._leaving):
            if link is not None:
                link.close()
        for _, pipe in self._waiting:
            pipe.close()

    # --- inside

    def _start(self) -> ForkServerLink:
        with descriptor_limit.typed("a fork server"):
            return ForkServerLink(self._prepare, ledger=self._ledger, on_answer=self._answered, on_exit=self._ended)

    def _candidate_is_decided(self) -> None:
        self._candidate = None
        if self._again:
            self.reload()

    def _answered(self, link: ForkServerLink, message: messages.FromForkServer) -> None:
        match message:
            case messages.Prepared():
                for warning in message.warnings:
                    log.warning("%s", warning)
                self._prepared(link)
            case messages.NotPrepared():
                self._not_prepared(link, message)
            case messages.NotForked():
                self._owner.not_forked(message)

    def _prepared(self, link: ForkServerLink) -> None:
        renewed = link is self._candidate
        if renewed:
            former, self._current = self._current, link
            if former is not None:
                former.tell(messages.Release())
                self._leaving.append(former)
            self._start_at = None
            self.reloads += 1
        self._give_up_at = None
        self._ever_prepared = True
        self._backoff.reset()
        for child in self._owner.everybody():
            link.tell(messages.Guard(), child.pidfd)
        waiting, self._waiting = self._waiting, []
        for message, pipe in waiting:
            self.fork(message, pipe)
        if renewed:
            self._owner.renewed()
            self._candidate_is_decided()

    def _not_prepared(self, link: ForkServerLink, message: messages.NotPrepared) -> None:
        error = CATALOGUE.get(message.code, DatacenterError)(message.message, message.hint)
        link.kill()
        if link is self._candidate:
            self._leaving.append(link)
            log.error("no reload, the old code goes on: %s", error)
            self._candidate_is_decided()
        elif self._ever_prepared:
            log.error("%s", error)
        else:
            self._current = None
            self._leaving.append(link)  # it has said why: that it was killed then is no news
            self._owner.not_prepared(error)

    def _ended(self, link: ForkServerLink, status: int) -> None:
        if link in self._leaving:
            self._leaving.remove(link)
        elif link is self._candidate:
            log.error("no reload, the old code goes on: the new fork server %s", said_of(status))
            self._candidate_is_decided()
        elif link is self._current:
            self._current = None
            self._give_up_at = None
            if not self._ever_prepared:
                text = f"the process that imports the services {said_of(status)}"
                self._owner.not_prepared(NotServableError(text, "What it said is above. See also docs/prefork.md."))
                return
            self.restarts += 1
            pause_s = 0.0 if link.prepared else self._backoff.next()
            log.warning("the fork server (pid %d) %s; another one takes over", link.pid, said_of(status))
            self._start_at = self._loop.time() + pause_s
