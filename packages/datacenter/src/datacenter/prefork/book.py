"""What the workers of a family want from the registry, and what it said last: so that a watcher that takes over is told
all of it, and a worker that starts knows at once what is known. Pure: messages in, messages out.

A silent worker's instances are taken out of the registry, and put back when it is heard again: the watcher renews the
leases of all, so it must not do so for one that hangs.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from datacenter.prefork import messages
from datacenter.prefork.messages import Changed, NoAnswer, Register, SessionState, ToWatcher, ToWorker, Unregister
from datacenter.wire import ServiceType

#: to whom, what
ForWorkers = list[tuple[int, ToWorker]]
Name = tuple[str, ServiceType]


@dataclass
class _Watched:
    by: set[int] = field(default_factory=set)
    latest: Changed | NoAnswer | None = None


class Book:
    """See the module. Workers are numbers that are never used again. Not thread-safe: one owner."""

    def __init__(self) -> None:
        self.session = SessionState("connecting")
        self._instances: dict[str, tuple[int, Register]] = {}
        self._leaving: dict[str, int] = {}  # instance id -> the worker that waits until it is out
        self._silent: set[int] = set()
        self._watched: dict[Name, _Watched] = {}

    def from_worker(self, number: int, message: messages.FromWorker) -> tuple[list[ToWatcher], ForWorkers]:
        """What a worker's message means for the watcher, and for workers."""
        match message:
            case messages.Started():
                return [], [(number, self.session)]
            case Register():
                self._instances[message.instance.id] = (number, message)
                return [message], []
            case Unregister():
                self._instances.pop(message.instance_id, None)
                self._leaving[message.instance_id] = number
                return [message], []
            case messages.Watch():
                return self._watch(number, message)
            case messages.Unwatch():
                return self._unwatch(number, (message.name, message.type)), []
            case _:
                return [], []

    def from_watcher(self, message: messages.FromWatcher) -> ForWorkers:
        """Whom the watcher's message concerns."""
        match message:
            case messages.Registered() | messages.Refused() | messages.DrainRequested():
                owner = self._instances.get(message.instance_id)
                return [] if owner is None else [(owner[0], message)]
            case messages.Unregistered():
                asked = self._leaving.pop(message.instance_id, None)
                return [] if asked is None else [(asked, message)]
            case Changed():
                return self._tell((message.resolution.name, message.resolution.type), message)
            case NoAnswer():
                return self._tell((message.name, message.type), message)
            case SessionState():
                self.session = message
                return []  # for everybody
            case _:
                return []

    def replay(self) -> list[ToWatcher]:
        """Everything that a new watcher must know."""
        said: list[ToWatcher] = [
            register for number, register in self._instances.values() if number not in self._silent
        ]
        said += [Unregister(id_) for id_ in self._leaving]
        return said + [messages.Watch(*name) for name in self._watched]

    def ended(self, number: int) -> list[ToWatcher]:
        """Worker `number` is gone: so are its instances, before their leases end."""
        self._silent.discard(number)
        mine = [id_ for id_, (owner, _) in self._instances.items() if owner == number]
        said: list[ToWatcher] = [Unregister(id_) for id_ in mine]
        for id_ in mine:
            del self._instances[id_]
        for id_ in [id_ for id_, owner in self._leaving.items() if owner == number]:
            del self._leaving[id_]
        for name in [name for name, watched in self._watched.items() if number in watched.by]:
            said += self._unwatch(number, name)
        return said

    def silent(self, number: int) -> list[ToWatcher]:
        """Worker `number` was not heard for too long."""
        if number in self._silent:
            return []
        self._silent.add(number)
        return [Unregister(id_) for id_, (owner, _) in self._instances.items() if owner == number]

    def heard(self, number: int) -> list[ToWatcher]:
        """Worker `number` is heard again."""
        if number not in self._silent:
            return []
        self._silent.discard(number)
        return [register for owner, register in self._instances.values() if owner == number]

    def statistics(self) -> dict[str, int]:
        """Counts: instances registered, names watched, workers that are silent."""
        return {"instances": len(self._instances), "watched": len(self._watched), "silent": len(self._silent)}

    def _watch(self, number: int, message: messages.Watch) -> tuple[list[ToWatcher], ForWorkers]:
        name = (message.name, message.type)
        known = name in self._watched
        watched = self._watched.setdefault(name, _Watched())
        watched.by.add(number)
        return ([] if known else [message]), ([] if watched.latest is None else [(number, watched.latest)])

    def _unwatch(self, number: int, name: Name) -> list[ToWatcher]:
        watched = self._watched.get(name)
        if watched is None or number not in watched.by:
            return []
        watched.by.discard(number)
        if watched.by:
            return []
        del self._watched[name]
        return [messages.Unwatch(*name)]

    def _tell(self, name: Name, message: Changed | NoAnswer) -> ForWorkers:
        watched = self._watched.get(name)
        if watched is None:
            return []
        watched.latest = message
        return [(number, message) for number in watched.by]
