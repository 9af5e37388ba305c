"""The registry's state machine: register, renew, expire, resolve, list, watch. Pure: no socket, no clock, no file.

Every transition is in this file. The caller gives the time (`now`: seconds on any clock that never goes back) and
carries out what the methods return: `Change`s to be told to watchers.

Terms
- An instance lives while its lease is renewed. A lease ends `lease_s` after the last renewal, to the tick.
- Epochs only ever grow, over all names and over restarts: the first one is the wall clock in microseconds, handed in
  by the caller.
- A name that has been registered once is *known*: resolving it while nobody serves it answers "away", and the caller
  waits.
- A name never seen answers "unknown", and the caller fails at once, except while the registry is *settling*: for
  `grace_s` after its
  start the instances of its predecessor have not all come back, so every unknown name may still turn up.
- Watchers are opaque keys (the broker uses its session ids). A watcher is told the whole resolution, never a
  difference, so a
  message that comes twice or late does no harm (`version` tells which is newer).
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field

import msgspec

from datacenter import options
from datacenter.errors import DatacenterError, NoSuchServiceError, RegistryFullError, wrong_type
from datacenter.wire import Instance, Resolution, ServiceType, check_name


@dataclass(frozen=True)
class RegistryLimits:
    """A bound on everything a peer can make grow. Beyond one, RegistryFullError; known names forget the longest
    unused.
    """

    max_instances: int = options.MAX_INSTANCES
    max_known_names: int = options.MAX_KNOWN_NAMES
    max_watches_per_watcher: int = options.MAX_WATCHES


@dataclass(frozen=True)
class Change:
    """`resolution` has changed: tell it to `watchers`."""

    resolution: Resolution
    watchers: tuple[Hashable, ...]


@dataclass(frozen=True)
class Outcome:
    """What became of a registration of `owner`: its epoch, or why not. Neither: it is lost, and to be made again."""

    owner: Hashable
    instance_id: str
    epoch: int = 0
    error: DatacenterError | None = None


@dataclass
class _Name:
    type: ServiceType
    version: int
    instances: dict[str, Instance] = field(default_factory=dict)
    relay: str = ""


@dataclass
class _Lease:
    name: str
    owner: Hashable
    ends_at: float
    entry: int  # which entry of the heap is this lease's; the others of the same id are stale


class Registry:
    """See the module. Not thread-safe: one owner. `lease_s` and `grace_s` in seconds; `started_at` on the caller's
    clock.
    """

    def __init__(
        self,
        *,
        lease_s: float,
        grace_s: float,
        started_at: float,
        first_epoch: int,
        limits: RegistryLimits | None = None,
    ) -> None:
        self.lease_s = lease_s
        self.limits = limits or RegistryLimits()
        self.settled_at: float | None = started_at + grace_s
        self._epoch = first_epoch
        self._names: OrderedDict[str, _Name] = OrderedDict()
        self._leases: dict[str, _Lease] = {}
        self._ends: list[tuple[float, int, str]] = []  # heap of (earliest possible end, entry, instance id)
        self._entries = 0
        self._watchers: dict[str, dict[Hashable, ServiceType]] = {}
        self._watched_by: dict[Hashable, set[str]] = {}

    # --- of registries that share their truth with others (shared.py); this one always knows

    #: which registry this is, where several brokers have the same one: versions of one identity can be compared
    identity = ""

    def unavailable(self, now: float) -> DatacenterError | None:
        """Why nothing can be answered now; None: all is well."""
        return None

    def holds_s(self, now: float) -> float:
        """For how many seconds a lease that is renewed now certainly holds."""
        return self.lease_s

    def forward_drain(self, instance_id: str) -> None:
        """An instance that no session of this broker owns is to end in order."""

    def outcomes(self) -> list[Outcome]:
        """What has become of registrations that were not done at once."""
        return []

    def reset(self) -> None:
        """Forgets everything."""

    # --- instances

    def register(
        self, now: float, owner: Hashable, name: str, type_: ServiceType, instance: Instance
    ) -> tuple[int, list[Change]]:
        """Puts `instance` under `name` for `owner` and starts its lease. Returns (epoch, changes).

        Registering the same instance id again renews it and hands it to the new owner (a session that came back).
        Raises WrongTypeError if the name has another type, RegistryFullError at the limit, NotServableError for a bad
        name.
        """
        check_name("service", name)
        entry = self._names.get(name)
        if entry is not None and entry.type != type_:
            if entry.instances:
                raise wrong_type(name, entry.type, type_)
            entry.type = type_  # nobody serves it any more: the name is free for another type
        lease = self._leases.get(instance.id)
        if lease is None and len(self._leases) >= self.limits.max_instances:
            raise RegistryFullError(
                f"the registry holds {self.limits.max_instances} instances, as many as it takes",
                "Stop instances that are not needed: `datacenter ls` shows them.",
            )
        changes: list[Change] = []
        if lease is not None and lease.name != name:
            changes += self._remove(instance.id)
        epoch = self._next_epoch()
        if entry is None:
            self._forget_old_names()
            entry = self._names.setdefault(name, _Name(type_, epoch))
        entry.version = epoch
        entry.instances[instance.id] = msgspec.structs.replace(instance, epoch=epoch)
        self._start_lease(now, owner, name, instance.id)
        return epoch, [*changes, self._change(name)]

    def unregister(self, owner: Hashable, instance_id: str) -> list[Change]:
        """Takes an instance out. Nothing happens if `owner` does not own it (it came back under another session)."""
        lease = self._leases.get(instance_id)
        return self._remove(instance_id) if lease is not None and lease.owner == owner else []

    def renew(self, now: float, instance_ids: Iterable[str]) -> None:
        """Starts the leases of these instances anew. Ids that are not registered are ignored."""
        ends_at = now + self.lease_s
        for instance_id in instance_ids:
            lease = self._leases.get(instance_id)
            if lease is not None:
                lease.ends_at = max(lease.ends_at, ends_at)

    def expire(self, now: float, heard: Callable[[Hashable, str], float] | None = None) -> list[Change]:
        """Takes out every instance whose lease has ended; when settling ends, tells those who wait for names that
        never came.

        heard(owner, instance id): when a sign of life renewed this lease last, for a caller who does not want to call
        `renew` for each of an owner's many instances at each of its many messages. It is asked when a lease would end.
        """
        changes: list[Change] = []
        while self._ends and self._ends[0][0] <= now:
            _, entry, instance_id = heapq.heappop(self._ends)
            lease = self._leases.get(instance_id)
            if lease is None or lease.entry != entry:
                continue
            if heard is not None:
                lease.ends_at = max(lease.ends_at, heard(lease.owner, instance_id) + self.lease_s)
            if lease.ends_at <= now:
                changes += self._remove(instance_id)
            else:
                heapq.heappush(self._ends, (lease.ends_at, entry, instance_id))
        if self.settled_at is not None and self.settled_at <= now:
            self.settled_at = None
            changes += [self._change(name) for name in self._watchers if name not in self._names]
        return changes

    def next_deadline(self) -> float | None:
        """When `expire` has something to do at the earliest (it may then find nothing); None: never."""
        ends = self._ends[0][0] if self._ends else None
        if self.settled_at is None or (ends is not None and ends < self.settled_at):
            return ends
        return self.settled_at

    def set_relay(self, name: str, endpoint: str) -> list[Change]:
        """Where the relay of `name` listens from now on; "" for nowhere. Nothing happens for a name never seen."""
        entry = self._names.get(name)
        if entry is None or entry.relay == endpoint:
            return []
        entry.relay = endpoint
        entry.version = self._next_epoch()
        return [self._change(name)]

    def owner_of(self, instance_id: str) -> Hashable | None:
        """Who registered this instance, or None if it is not alive."""
        lease = self._leases.get(instance_id)
        return None if lease is None else lease.owner

    # --- questions

    def resolve(self, name: str, type_: ServiceType) -> Resolution:
        """What `name` stands for now. Raises WrongTypeError if it is registered with another type."""
        check_name("service", name)
        entry = self._names.get(name)
        if entry is not None and entry.type != type_:
            raise wrong_type(name, entry.type, type_)
        if entry is not None:
            self._names.move_to_end(name)  # the longest unused name is the first to be forgotten
        return self._resolution(name, type_)

    def find(self, target: str) -> Resolution:
        """The service named `target` with its instances, or that of the instance with this id and it alone. Raises
        NoSuchServiceError.
        """
        lease = self._leases.get(target)
        name = lease.name if lease is not None else target
        entry = self._names.get(name)
        if entry is None:
            raise self._no_such(target)
        whole = self._resolution(name, entry.type)
        return whole if lease is None else msgspec.structs.replace(whole, instances=(entry.instances[target],))

    def services(self) -> list[Resolution]:
        """All names known, in the order of their names."""
        return [self._resolution(name, entry.type) for name, entry in sorted(self._names.items())]

    # --- watchers

    def watch(self, watcher: Hashable, name: str, type_: ServiceType) -> None:
        """From now on `watcher` is among those of every Change of `name`. Raises RegistryFullError at the watcher's
        limit.
        """
        names = self._watched_by.setdefault(watcher, set())
        if name not in names and len(names) >= self.limits.max_watches_per_watcher:
            raise RegistryFullError(
                f"this session watches {len(names)} names, as many as one may",
                "Close clients that are not used any more.",
            )
        names.add(name)
        self._watchers.setdefault(name, {})[watcher] = type_

    def unwatch(self, watcher: Hashable, name: str) -> None:
        """Ends one watch; nothing happens if there is none."""
        watchers = self._watchers.get(name)
        if watchers is not None and watchers.pop(watcher, None) is not None and not watchers:
            del self._watchers[name]
        names = self._watched_by.get(watcher)
        if names is not None:
            names.discard(name)
            if not names:
                del self._watched_by[watcher]

    def forget_watcher(self, watcher: Hashable) -> None:
        """Ends all watches of a watcher."""
        for name in tuple(self._watched_by.get(watcher, ())):
            self.unwatch(watcher, name)

    def statistics(self) -> dict[str, int]:
        """Counts: names known, instances alive, names watched, watchers."""
        return {
            "names": len(self._names),
            "instances": len(self._leases),
            "watched_names": len(self._watchers),
            "watchers": len(self._watched_by),
        }

    # --- inside

    def _no_such(self, target: str) -> NoSuchServiceError:
        return NoSuchServiceError(
            f"there is no service and no instance named {target!r}",
            "See what there is: `datacenter ls`. An instance that was drained has left already."
            if self.settled_at is None
            else "The broker has just started; instances are still on their way back. Try again in some seconds.",
        )

    def _start_lease(self, now: float, owner: Hashable, name: str, instance_id: str) -> None:
        self._entries += 1
        ends_at = now + self.lease_s
        self._leases[instance_id] = _Lease(name, owner, ends_at, self._entries)
        heapq.heappush(self._ends, (ends_at, self._entries, instance_id))

    def _next_epoch(self) -> int:
        self._epoch += 1
        return self._epoch

    def _remove(self, instance_id: str) -> list[Change]:
        lease = self._leases.pop(instance_id)
        entry = self._names[lease.name]
        del entry.instances[instance_id]
        entry.version = self._next_epoch()
        return [self._change(lease.name)]

    def _change(self, name: str) -> Change:
        watchers = self._watchers.get(name, {})
        entry = self._names.get(name)
        type_: ServiceType = entry.type if entry is not None else next(iter(watchers.values()), "rpc")
        return Change(self._resolution(name, type_), tuple(watchers))

    def _resolution(self, name: str, type_: ServiceType) -> Resolution:
        entry = self._names.get(name)
        if entry is None:
            return Resolution(name, type_, "unknown" if self.settled_at is None else "settling", self._epoch)
        instances = tuple(sorted(entry.instances.values(), key=lambda instance: instance.epoch))
        return Resolution(name, entry.type, "live" if instances else "away", entry.version, instances, entry.relay)

    def _forget_old_names(self) -> None:
        """Makes room for one more known name: the longest unused ones without instance and watcher go first."""
        excess = len(self._names) + 1 - self.limits.max_known_names
        if excess <= 0:
            return
        idle = [
            name
            for name, entry in self._names.items()
            if not entry.instances and not entry.relay and name not in self._watchers
        ]
        for name in idle[:excess]:
            del self._names[name]
