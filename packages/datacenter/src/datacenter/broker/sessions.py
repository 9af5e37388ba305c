"""What the broker knows of the processes that talk to it, and what it answers them. Pure: messages in, messages out.

A session is a routing id: libzmq gives a new one to every connection, so a process that comes back is a new session,
and what belonged to its old one moves over when it registers again. Any message counts as a heartbeat. A session that
is silent for `missed_heartbeats` is forgotten together with its watches; its instances leave the registry when their
leases end, at the same moment or before.

A session may ask for a name's relay. Which relays are wanted, and of which instances, is decided here, as
`RelayOrder`s; they are made and ended elsewhere (relays.py), and what became of them is told to this module.

A registry that several brokers share (registry/shared.py) may become unavailable: everybody is then sent away, to other
brokers, and everything is forgotten; and a registration is answered when its outcome is known.

Whoever is unknown is told to introduce himself: that is how a process notices that the broker restarted, or that it
was itself silent for too long (SIGSTOP, a suspended laptop) and has lost its leases.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field

import msgspec

from datacenter import wire
from datacenter.errors import DatacenterError
from datacenter.registry.state import Change, Outcome, Registry
from datacenter.sockets import addresses
from datacenter.wire import Resolution, ServiceType

#: (routing id, message) to be sent
Answers = list[tuple[bytes, wire.FromBroker]]


@dataclass
class PeerProcess:
    """One session, for the books. Times on the caller's clock, in seconds."""

    hello: wire.Hello
    since: float
    last_received: float
    last_sent: float
    instances: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class RelayOrder:
    """A relay of `name` is wanted, or there is one: these are its live instances now."""

    name: str
    type: ServiceType
    endpoints: tuple[str, ...]


class Sessions:
    """See the module. Not thread-safe: one owner. The caller gives `now` (seconds, never goes back) and sends the
    answers.
    """

    def __init__(self, registry: Registry, welcome: wire.Welcome, *, max_sessions: int) -> None:
        self.registry = registry
        self.welcome = welcome
        self.max_sessions = max_sessions
        self.processes: OrderedDict[bytes, PeerProcess] = OrderedDict()  # longest silent first
        self.refused = 0
        self._open = False  # the registry was available when it was asked last
        self._asked: dict[str, tuple[bytes, int]] = {}  # registrations that wait for an outcome: (session, request)
        self._relay_wanted: dict[str, set[bytes]] = {}  # name -> sessions that asked for its relay
        self._orders: dict[str, RelayOrder] = {}

    def received(self, now: float, who: bytes, message: wire.ToBroker) -> Answers:
        """What to answer to one message."""
        problem = self.registry.unavailable(now)
        if problem is not None:
            refusal: Answers = [(who, wire.Refused(0, problem.code, problem.message, problem.hint))]
            return [*self._abandon(), *refusal]
        self._open = True
        if isinstance(message, wire.Hello):
            return self._hello(now, who, message)
        process = self.processes.get(who)
        if process is None:
            return [] if isinstance(message, wire.Bye) else [(who, wire.Reintroduce())]
        process.last_received = now
        self.processes.move_to_end(who)  # its leases are renewed when they would end: see _heard
        answers: Answers
        try:
            match message:
                case wire.Register():
                    answers = self._register(now, who, process, message)
                case wire.Unregister():
                    process.instances.discard(message.instance_id)
                    answers = self.tell(self.registry.unregister(who, message.instance_id))
                    answers.append((who, wire.Unregistered(message.request)))
                case wire.Resolve():
                    resolution = self.registry.resolve(message.name, message.type)
                    if message.watch:
                        self.registry.watch(who, message.name, message.type)
                        self._want_relay(who, message, resolution)
                    answers = [(who, wire.Resolved(message.request, resolution))]
                case wire.Unwatch():
                    self.registry.unwatch(who, message.name)
                    self._unwant_relay(who, message.name)
                    answers = []
                case wire.ListServices():
                    answers = [(who, wire.Listing(message.request, tuple(self.registry.services())))]
                case wire.Drain():
                    answers = self._drain(who, message)
                case wire.Bye():
                    answers = self._leave(who)
                case wire.Heartbeat():
                    holds_s = self.registry.holds_s(now)
                    answers = [(who, wire.BrokerHeartbeat(message.number, holds_s))] if message.number else []
        except DatacenterError as error:
            self.refused += 1
            request = getattr(message, "request", 0)
            answers = [(who, wire.Refused(request, error.code, error.message, error.hint))]
        return self._note_sent(now, answers)

    def gone(self, who: bytes) -> None:
        """A message could not be delivered because this peer is no longer connected. Its leases end by themselves."""
        self._forget(who)

    def tick(self, now: float) -> Answers:
        """What is due: leases that end, sessions that are silent for too long, heartbeats to those who heard nothing
        else.
        """
        if self.registry.unavailable(now) is not None:
            return self._abandon()
        self._open = True
        answers = self.tell(self.registry.expire(now, self._heard))
        if self._asked:
            self._asked = {id_: asked for id_, asked in self._asked.items() if asked[0] in self.processes}
        silence_s = self.welcome.heartbeat_s * self.welcome.missed_heartbeats
        while self.processes:
            who, process = next(iter(self.processes.items()))
            if now - process.last_received <= silence_s:
                break
            self._forget(who)
        for who, process in self.processes.items():
            if now - process.last_sent >= self.welcome.heartbeat_s * 0.9:
                answers.append((who, wire.BrokerHeartbeat()))
        return self._note_sent(now, answers)

    def news(self, now: float, changes: list[Change]) -> Answers:
        """What the registry heard from elsewhere: changes, and what became of registrations."""
        if self.registry.unavailable(now) is not None:
            return self._abandon()
        self._open = True
        answers = self.tell(changes)
        for outcome in self.registry.outcomes():
            answers += self._outcome(outcome)
        return self._note_sent(now, answers)

    def _outcome(self, outcome: Outcome) -> Answers:
        who = outcome.owner
        process = self.processes.get(who) if isinstance(who, bytes) else None
        _, request = self._asked.pop(outcome.instance_id, (who, 0))
        if process is None or not isinstance(who, bytes):
            return []
        if outcome.epoch:
            return [(who, wire.Registered(request, outcome.epoch))] if request else []
        process.instances.discard(outcome.instance_id)
        error = outcome.error
        if error is not None and request:
            self.refused += 1
            return [(who, wire.Refused(request, error.code, error.message, error.hint))]
        return [(who, wire.Reintroduce())]

    def _abandon(self) -> Answers:
        """Nothing is certain any more: sends everybody away, once, and forgets all."""
        if not self._open:
            return []
        self._open = False
        answers = self.shutdown()
        self.registry.reset()
        for books in (self.processes, self._asked, self._relay_wanted, self._orders):
            books.clear()
        return answers

    def shutdown(self) -> Answers:
        """The goodbye to everybody."""
        return [(who, wire.Shutdown()) for who in self.processes]

    # --- relays

    def relay_orders(self) -> list[RelayOrder]:
        """What has changed for relays since this was asked last; the latest word for each name."""
        orders, self._orders = list(self._orders.values()), {}
        return orders

    def relay_made(self, name: str, endpoint: str) -> Answers:
        """The relay of `name` listens; "": it has ended. Its clients are to be told."""
        return self.tell(self.registry.set_relay(name, endpoint))

    def relay_refused(self, name: str, type_: ServiceType, error: DatacenterError) -> Answers:
        """The relay of `name` could not be made."""
        message = wire.NoRelay(name, type_, f"there is no relay of {name}: {error.message}", error.hint)
        return [(who, message) for who in self._relay_wanted.get(name, ())]

    def _want_relay(self, who: bytes, message: wire.Resolve, resolution: Resolution) -> None:
        if message.relay and message.type == "rpc":
            self._relay_wanted.setdefault(message.name, set()).add(who)
            self._order(resolution)

    def _unwant_relay(self, who: bytes, name: str) -> None:
        wanted = self._relay_wanted.get(name)
        if wanted is not None:
            wanted.discard(who)
            if not wanted:
                del self._relay_wanted[name]

    def _order(self, resolution: Resolution) -> None:
        if resolution.relay or (resolution.instances and resolution.name in self._relay_wanted):
            endpoints = tuple(dict.fromkeys(instance.endpoint for instance in resolution.instances))
            self._orders[resolution.name] = RelayOrder(resolution.name, resolution.type, endpoints)

    def tell(self, changes: list[Change]) -> Answers:
        """Changes of the registry as messages to those who watch."""
        answers: Answers = []
        for change in changes:
            self._order(change.resolution)
            message = wire.Changed(change.resolution)  # one object: it is encoded once for all who watch
            answers += [(who, message) for who in change.watchers if isinstance(who, bytes)]
        return answers

    def _hello(self, now: float, who: bytes, hello: wire.Hello) -> Answers:
        if hello.protocol == wire.PROTOCOL:
            if who not in self.processes and len(self.processes) >= self.max_sessions:
                self.refused += 1
                text = f"the broker has {self.max_sessions} sessions, as many as it takes"
                return [
                    (
                        who,
                        wire.Refused(0, "registry-full", text, "Use another broker, or start it with --max-sessions."),
                    )
                ]
            known = self.processes.pop(who, None)  # and to the end: it is the latest to be heard of
            instances = known.instances if known is not None else set()
            self.processes[who] = PeerProcess(hello, now, now, now, instances)
        welcome = msgspec.structs.replace(self.welcome, registry=self.registry.identity)
        return [(who, welcome)]  # it says which protocol this is, also to those who speak another

    def _register(self, now: float, who: bytes, process: PeerProcess, message: wire.Register) -> Answers:
        addresses.check_told(message.instance.endpoint)
        former = self.registry.owner_of(message.instance.id)
        epoch, changes = self.registry.register(now, who, message.name, message.type, message.instance)
        if former != who and isinstance(former, bytes) and former in self.processes:
            self.processes[former].instances.discard(message.instance.id)
        process.instances.add(message.instance.id)
        if not epoch:
            self._asked[message.instance.id] = who, message.request
            return self.tell(changes)
        return [*self.tell(changes), (who, wire.Registered(message.request, epoch))]

    def _drain(self, who: bytes, message: wire.Drain) -> Answers:
        service = self.registry.find(message.target)
        owners = [(self.registry.owner_of(instance.id), instance.id) for instance in service.instances]
        for owner, id_ in owners:
            if owner is None:
                self.registry.forward_drain(id_)
        told: Answers = [(owner, wire.DrainRequested(id_)) for owner, id_ in owners if isinstance(owner, bytes)]
        return [*told, (who, wire.Draining(message.request, service))]

    def _leave(self, who: bytes) -> Answers:
        process = self._forget(who)
        if process is None:
            return []
        changes = [change for instance in process.instances for change in self.registry.unregister(who, instance)]
        return self.tell(changes)

    def _forget(self, who: bytes) -> PeerProcess | None:
        self.registry.forget_watcher(who)
        for name in [name for name, wanted in self._relay_wanted.items() if who in wanted]:
            self._unwant_relay(who, name)
        process = self.processes.pop(who, None)
        if process is not None:
            self.registry.renew(process.last_received, process.instances)
        return process

    def _heard(self, owner: Hashable, instance_id: str) -> float:
        """When this instance's session was heard: a message renews all its leases, of which there may be thousands."""
        process = self.processes.get(owner) if isinstance(owner, bytes) else None
        return process.last_received if process is not None and instance_id in process.instances else float("-inf")

    def _note_sent(self, now: float, answers: Answers) -> Answers:
        for who, _ in answers:
            process = self.processes.get(who)
            if process is not None:
                process.last_sent = now
        return answers
