"""The relay manager: at most one relay a name, made and ended while calls flow.

Decided under the lock, done outside it. A name's entry is made under the lock by the first who asks; that one makes the
relay, without the lock, and publishes it when it listens. Whoever asks meanwhile waits at the entry and gets the same
relay, or the same error; nobody sees a half-made one, and none is ever overwritten. A relay that is being ended keeps
its entry until it has ended, so its successor never meets it.

The one lock is held for a few statements, never over a wait, a socket or a log line.
"""

from __future__ import annotations

import concurrent.futures
import copy
import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from datacenter.broker.relay import Relay, RelayOptions, RelayStatistics
from datacenter.broker.relay_life import DISAGREEMENT_S, RELAY_IDLE_S, RelayLife
from datacenter.checks import check, instance_of, seconds, whole
from datacenter.errors import ClosedError, DatacenterError, RegistryFullError, wrong_type
from datacenter.options import CLOSE_DEADLINE_S, option
from datacenter.sockets import CloseReport, SocketContext, fork
from datacenter.wire import ServiceType, check_name

log = logging.getLogger("datacenter.relay")


# fmt: off
@dataclass(frozen=True)
class RelayManagerOptions:
    """Named limits of a relay manager. Counts and seconds."""

    max_relays: int = option(
        "relay", "max_relays", 1000, "relays", "L",
        "Relays of one broker: each is a thread and, idle, 4 descriptors. The next is refused; the direct route is "
        "left.")
    relay_idle_s: float = RELAY_IDLE_S
    disagreement_s: float = DISAGREEMENT_S
    wait_s: float = option(
        "relay", "wait_s", 5.0, "s", "F", "How long one caller waits for a relay that another one makes or ends.")
    stop_deadline_s: float = option(
        "relay", "stop_deadline_s", CLOSE_DEADLINE_S, "s", "C",
        "The end of a relay is waited for so long, whatever state it is in (it takes milliseconds); then what was "
        "still open is named.")
    relay: RelayOptions = field(default_factory=RelayOptions)
# fmt: on

    def __post_init__(self) -> None:
        check(
            self,
            max_relays=whole(),
            relay_idle_s=seconds(),
            disagreement_s=seconds(),
            wait_s=seconds(),
            stop_deadline_s=seconds(),
            relay=instance_of(RelayOptions),
        )


@dataclass(frozen=True)
class RelayManagerStatistics:
    """`made` and `ended` count since the start; `relays` are those that serve now."""

    made: int
    ended: int
    making: int
    ending: int
    relays: tuple[RelayStatistics, ...]


class _Entry:
    """A name's place: the relay once it is made, and its end. `relay` and `ending` are under the manager's lock."""

    def __init__(self, type_: ServiceType, life: RelayLife) -> None:
        self.type = type_
        self.life = life
        self.made: concurrent.futures.Future[Relay] = concurrent.futures.Future()
        self.relay: Relay | None = None
        self.ending = False
        self.gone = threading.Event()


class RelayManager:
    """Thread-safe. close() it before its context. In a forked child close() does nothing, the rest raises ForkedError.

    host: the part of each relay's address before the port, which is chosen.
    """

    def __init__(
        self,
        context: SocketContext,
        *,
        host: str = "tcp://127.0.0.1",
        insecure: bool = False,
        options: RelayManagerOptions | None = None,
    ) -> None:
        self.options = options or RelayManagerOptions()
        self._context = context
        self._listen = f"{host}:0"
        self._insecure = insecure
        self._epoch = fork.current()
        self._lock = threading.Lock()
        self._entries: dict[str, _Entry] = {}
        self._closed = False
        self._made = self._ended = 0

    # --- making

    def get_or_create(self, name: str, type_: ServiceType = "rpc") -> Relay:
        """The relay of `name`; made if there is none. All who ask at once get the same object, or the same error.

        Raises WrongTypeError if there is one of another type, RegistryFullError at `max_relays`, ClosedError,
        NotServableError for a bad name, and what Relay raises.
        """
        fork.check(self._epoch, "The relay manager")
        check_name("service", name)
        deadline = time.monotonic() + self.options.wait_s
        while True:
            entry, mine = self._enter(name, type_)
            if mine:
                return self._make(name, entry)
            if not entry.ending:
                return self._wait(name, entry, deadline)
            if not entry.gone.wait(max(0.0, deadline - time.monotonic())):
                raise DatacenterError(f"The former relay of {name!r} has not ended yet.", "Try again.")

    def _enter(self, name: str, type_: ServiceType) -> tuple[_Entry, bool]:
        """The entry of a name, and whether the caller is to make its relay."""
        with self._lock:
            if self._closed:
                raise ClosedError("The relay manager is closed.", "Make a new one.")
            entry = self._entries.get(name)
            if entry is not None:
                if entry.type != type_ and not entry.ending:
                    raise wrong_type(name, entry.type, type_)
                return entry, False
            if len(self._entries) >= self.options.max_relays:
                raise RegistryFullError(
                    f"There are {self.options.max_relays} relays, as many as there may be.",
                    "Use the direct route, or start the broker with a higher limit.",
                )
            life = RelayLife(
                time.monotonic(),
                relay_idle_s=self.options.relay_idle_s,
                disagreement_s=self.options.disagreement_s,
            )
            entry = self._entries[name] = _Entry(type_, life)
            return entry, True

    def _make(self, name: str, entry: _Entry) -> Relay:
        try:
            relay = Relay(name, self._context, listen=self._listen, insecure=self._insecure, options=self.options.relay)
        except BaseException as error:
            with self._lock:
                entry.ending = True
                self._entries.pop(name, None)
            told = error if isinstance(error, Exception) else DatacenterError(f"Making {name!r} was interrupted.")
            entry.made.set_exception(told)
            entry.gone.set()
            raise
        with self._lock:
            entry.relay = relay
            self._made += 1
            unwanted = self._closed
            entry.ending |= unwanted
        if unwanted:  # close() came meanwhile, and leaves to us what it could not see
            self._finish(name, entry, relay, self.options.stop_deadline_s)
            closed = ClosedError("The relay manager is closed.", "Make a new one.")
            entry.made.set_exception(closed)
            raise closed
        entry.made.set_result(relay)
        return relay

    def _wait(self, name: str, entry: _Entry, deadline: float) -> Relay:
        try:
            return entry.made.result(max(0.0, deadline - time.monotonic()))
        except concurrent.futures.TimeoutError:
            raise DatacenterError(f"The relay of {name!r} is still being made.", "Try again.") from None
        except DatacenterError as error:
            raise copy.copy(error) from error  # a traceback of its own for each who waits

    # --- looking

    def get(self, name: str) -> Relay | None:
        """The relay of `name` that serves, or None."""
        fork.check(self._epoch, "The relay manager")
        with self._lock:
            entry = self._entries.get(name)
            return None if entry is None or entry.ending else entry.relay

    def statistics(self) -> RelayManagerStatistics:
        """See RelayManagerStatistics."""
        fork.check(self._epoch, "The relay manager")
        with self._lock:
            entries = list(self._entries.values())
            made, ended = self._made, self._ended
            serving = [entry.relay for entry in entries if entry.relay is not None and not entry.ending]
            ending = sum(entry.ending for entry in entries)
        return RelayManagerStatistics(
            made, ended, len(entries) - ending - len(serving), ending, tuple(relay.statistics() for relay in serving)
        )

    def __repr__(self) -> str:
        state = "forked" if fork.ended(self._epoch) else "closed" if self._closed else "open"
        entries = list(self._entries.values())
        making = sum(entry.relay is None for entry in entries)
        ending = sum(entry.ending for entry in entries)
        serving = len(entries) - making - ending
        return f"<RelayManager {state}, {serving} relays, {making} being made, {ending} ending>"

    # --- ending

    def remove(self, name: str, relay: Relay | None = None) -> CloseReport:
        """Ends the relay of `name`, only if it is `relay` where that is given. Nothing happens if there is none.

        Bounded by `stop_deadline_s`; returns when it has ended, also if another thread ends it.
        """
        fork.check(self._epoch, "The relay manager")
        began = time.monotonic()
        with self._lock:
            entry = self._entries.get(name)
            if entry is None or entry.relay is None or (relay is not None and entry.relay is not relay):
                return CloseReport((), 0.0)
            found, mine = entry.relay, not entry.ending
            entry.ending = True
        if mine:
            return self._finish(name, entry, found, self.options.stop_deadline_s)
        ended = entry.gone.wait(self.options.stop_deadline_s)
        return CloseReport(() if ended else (f"relay {name}",), time.monotonic() - began)

    def _finish(self, name: str, entry: _Entry, relay: Relay, deadline_s: float) -> CloseReport:
        report = relay.stop(deadline_s)
        if not report.clean:
            log.warning("the relay of %s did not end within %.1f s", name, report.seconds)
        with self._lock:
            self._entries.pop(name, None)
            self._ended += 1
        entry.gone.set()
        return report

    def tick(self, now: float, leases: Mapping[str, int]) -> list[str]:
        """Ends relays that nobody needs (relay_life.py); to be called now and then, with the live leases by name.

        now: time.monotonic(). Returns the names whose relays it ended. Blocks for each one's stop: milliseconds.
        """
        fork.check(self._epoch, "The relay manager")
        with self._lock:
            serving = [(name, entry, entry.relay) for name, entry in self._entries.items() if not entry.ending]
        ended: list[str] = []
        for name, entry, relay in serving:
            if relay is None:
                continue
            decision = entry.life.decide(now, leases=leases.get(name, 0), connections=relay.connected())
            if decision.disagreement:
                log.warning("relay of %s: %s", name, decision.disagreement)
            if decision.end:
                self.remove(name, relay)
                ended.append(name)
        return ended

    def close(self, deadline_s: float = CLOSE_DEADLINE_S) -> CloseReport:
        """Ends all relays, at once, and takes no more. Idempotent; bounded; does nothing in a forked child."""
        began = time.monotonic()
        if fork.ended(self._epoch):
            return CloseReport((), 0.0)
        with self._lock:
            self._closed = True
            entries = list(self._entries.items())
            mine = [(name, entry) for name, entry in entries if entry.relay is not None and not entry.ending]
            for _, entry in mine:
                entry.ending = True
        for _, entry in mine:
            if entry.relay is not None:
                entry.relay.stop(0.0)  # tells them all before it waits for the first
        deadline = began + deadline_s
        for name, entry in mine:
            if entry.relay is not None:
                self._finish(name, entry, entry.relay, max(0.05, deadline - time.monotonic()))
        left = [
            f"relay {name}" for name, entry in entries if not entry.gone.wait(max(0.0, deadline - time.monotonic()))
        ]
        left += [f"relay {name}" for name, entry in mine if entry.relay is not None and entry.relay.state != "ended"]
        return CloseReport(tuple(left), time.monotonic() - began)
