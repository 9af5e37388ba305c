"""A registry whose truth is a tree that several brokers share: one broker's part of it. Pure: no socket, no clock.

The tree (ZooKeeper's, see zookeeper.py) has a folder for each name and in it a node for each registration, which its
broker made and which vanishes with that broker's session. This module knows what the tree holds, as it is told
(`seen`), decides what is to be written (`orders`), and answers its sessions as `Registry` does.

- A registration is done once its node was *seen*: its epoch is the number of the transaction that made the node, so
  epochs grow over all brokers. A node's name is never used twice: a list of names that is the same means the same
  registrations, and no change between two looks is lost.
- Of several nodes of one instance id the youngest counts: the instance has moved to another broker, and the one that
  had it before lets go. If it cannot (it is stopped, or its word was lost), whoever sees an older one removes it, and
  it never counts again, also when the youngest is gone: epochs do not go back. Its instance registers anew.
- Of several types under one name the oldest node's counts: the others are refused.
- `unavailable`: what is known is true only until the tree was asked last plus a part of the session. Beyond that, and
  until all was read again, nothing is answered: the caller sends its sessions away, to other brokers. Time is the
  caller's monotonic clock, so a wall clock that jumps changes nothing.
- A name that is not known is checked in the tree before anybody is told that it is unknown: another broker may have
  registered it a moment ago.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass

import msgspec

from datacenter.errors import DatacenterError, RegistryFullError, RegistryUnreachableError, wrong_type
from datacenter.registry.state import Change, Outcome, Registry, RegistryLimits, _Name
from datacenter.wire import Instance, Resolution, ServiceType, check_name

#: of one registration, encoded; ZooKeeper ends the connection that sends it more than 1 MiB (jute.maxbuffer)
MAX_NODE_BYTES = 900_000


@dataclass(frozen=True)
class Node:
    """One registration in the tree. `instance.epoch` is the transaction that made it."""

    node: str
    type: ServiceType
    instance: Instance


@dataclass(frozen=True)
class Publish:
    """Write this node."""

    name: str
    node: str
    type: ServiceType
    instance: Instance


@dataclass(frozen=True)
class Withdraw:
    """Remove this node, if it is there."""

    name: str
    node: str


@dataclass(frozen=True)
class Check:
    """Look, with what all brokers have written, whether there is such a name; then `seen` or `absent`."""

    name: str


@dataclass(frozen=True)
class ForwardDrain:
    """Have the broker of this node tell its instance to end in order."""

    node: str


@dataclass(frozen=True)
class Forget:
    """Remove a name, if it still has no instance."""

    name: str


Order = Publish | Withdraw | Check | ForwardDrain | Forget


@dataclass
class _Publication:
    name: str
    node: str
    type: ServiceType
    instance: Instance
    epoch: int = 0  # 0: not seen yet


class SharedRegistry(Registry):
    """See the module. `broker_id`: unlike that of any other broker, also of this one's predecessors."""

    def __init__(self, *, lease_s: float, broker_id: str, limits: RegistryLimits | None = None) -> None:
        super().__init__(lease_s=lease_s, grace_s=0.0, started_at=0.0, first_epoch=0, limits=limits)
        self.settled_at = None
        self.synchronised = False  # all of the tree was read, and is told of from now on
        self.generation = 0  # how often everything was forgotten
        self.identity = ""
        self.where = "the shared registry"
        self._broker_id = broker_id
        self._valid_until = float("-inf")
        self._made = 0
        self._published: dict[str, _Publication] = {}  # by instance id: what we want in the tree
        self._nodes: dict[str, str] = {}  # its nodes -> instance ids
        self._of_name: dict[str, set[str]] = {}  # name -> instance ids published under it
        self._trees: dict[str, tuple[ServiceType, int, tuple[Node, ...]]] = {}
        self._homes: dict[str, str] = {}  # instance id -> name, of all instances that are visible
        self._latest: dict[str, int] = {}  # instance id -> its youngest epoch; outlives `reset`, latest seen at the end
        self._orders: dict[Hashable, Order] = {}
        self._outcomes: list[Outcome] = []

    # --- whether what is known is true

    def unavailable(self, now: float) -> DatacenterError | None:
        if self.synchronised and now < self._valid_until:
            return None
        return RegistryUnreachableError(
            f"this broker has lost {self.where}, and does not know who lives",
            "Use another broker, or look at ZooKeeper: `echo srvr | nc HOST 2181` on each server.",
        )

    def holds_s(self, now: float) -> float:
        return max(0.0, min(self.lease_s, self._valid_until - now))

    def confirmed(self, until: float) -> None:
        """The tree's session lives, at least until then."""
        self._valid_until = max(self._valid_until, until)

    def confirmed_no_more(self) -> None:
        """The tree's session has ended."""
        self.synchronised = False
        self._valid_until = float("-inf")

    def reset(self) -> None:
        """Everything that was known is void: also who is registered here, and who watches."""
        self.synchronised = False
        self.generation += 1
        self._orders.clear()
        self._outcomes.clear()
        for state in (self._names, self._leases, self._watchers, self._watched_by):
            state.clear()
        for more in (self._published, self._nodes, self._of_name, self._trees, self._homes):
            more.clear()
        self._ends.clear()

    def identify(self, identity: str) -> None:
        """Which tree it is. Another one's epochs begin anew."""
        if identity != self.identity:
            self._latest.clear()
        self.identity = identity

    # --- what the caller carries out

    def orders(self) -> list[Order]:
        """What is to be written or checked since this was asked last; the latest word for each node."""
        orders, self._orders = list(self._orders.values()), {}
        return orders

    def outcomes(self) -> list[Outcome]:
        """What has become of registrations since this was asked last."""
        outcomes, self._outcomes = self._outcomes, []
        return outcomes

    # --- what the tree holds

    def seen(self, name: str, type_: ServiceType, version: int, nodes: Iterable[Node]) -> list[Change]:
        """The tree has `nodes` under `name`, whose folder says `type_`; `version`: its latest transaction. What is
        older than what was seen is ignored.
        """
        if name in self._trees and version < self._trees[name][1]:
            return []
        self._trees[name] = (type_, version, tuple(nodes))
        return self._look_again(name)

    def absent(self, name: str) -> list[Change]:
        """The tree has no such name, with all that was written before the check."""
        if name in self._trees:
            return []
        watchers = self._watchers.get(name, {})
        type_: ServiceType = next(iter(watchers.values()), "rpc")
        return [Change(Resolution(name, type_, "unknown", self._epoch), tuple(watchers))] if watchers else []

    def names(self, present: Iterable[str]) -> list[Change]:
        """The tree has these names and no others."""
        changes: list[Change] = []
        for name in self._trees.keys() - set(present):
            changes += self.seen(name, *self._trees[name][:2], ())
            del self._trees[name]
            if self._names.pop(name, None) is not None:
                changes += self.absent(name)
        return changes

    def behind(self, node: str) -> tuple[Hashable, str] | None:
        """(owner, id) of the instance behind a node of ours."""
        instance_id = self._nodes.get(node)
        return None if instance_id is None else (self._leases[instance_id].owner, instance_id)

    def has_node(self, node: str) -> bool:
        """Whether the tree has this node, as far as it was seen."""
        return any(known.node == node for _, _, nodes in self._trees.values() for known in nodes)

    def _look_again(self, name: str) -> list[Change]:
        """Decides anew who serves `name`."""
        folder_type, version, nodes = self._trees[name]
        nodes = self._without_orphans(name, nodes)
        oldest = min(nodes, key=lambda each: each.instance.epoch, default=None)
        type_ = oldest.type if oldest is not None else folder_type
        youngest: dict[str, Node] = {}
        for each in sorted((each for each in nodes if each.type == type_), key=lambda each: -each.instance.epoch):
            if each.instance.epoch >= self._latest.get(each.instance.id, 0) and each.instance.id not in youngest:
                youngest[each.instance.id] = each
                self._note_epoch(each.instance)
            elif not self._is_ours(each.node):
                self._order(Withdraw(name, each.node))
        self._settle_publications(name, type_, nodes, youngest)
        instances = {
            id_: each.instance
            for id_, each in youngest.items()
            if not self._is_ours(each.node) or each.node in self._nodes
        }
        return self._update(name, type_, version, instances)

    def _note_epoch(self, instance: Instance) -> None:
        self._latest.pop(instance.id, None)
        self._latest[instance.id] = instance.epoch
        while len(self._latest) > 2 * self.limits.max_instances:  # those that were not seen for longest
            del self._latest[next(iter(self._latest))]

    def _without_orphans(self, name: str, nodes: tuple[Node, ...]) -> tuple[Node, ...]:
        """Without the nodes of ours that nobody here holds any more, which are removed."""
        kept = []
        for each in nodes:
            if self._is_ours(each.node) and each.node not in self._nodes:
                self._order(Withdraw(name, each.node))
            else:
                kept.append(each)
        return tuple(kept)

    def _settle_publications(
        self, name: str, type_: ServiceType, nodes: tuple[Node, ...], youngest: dict[str, Node]
    ) -> None:
        """Ours under this name: registered, refused, moved away, or lost."""
        found = {each.node: each for each in nodes}
        for id_ in tuple(self._of_name.get(name, ())):
            publication = self._published[id_]
            node = found.get(publication.node)
            if node is None:
                if publication.epoch:  # somebody removed it
                    self._drop(id_)
                continue
            if node.type != type_:
                self._drop(id_, wrong_type(name, type_, node.type))
            elif id_ not in youngest or youngest[id_].node != publication.node:  # it registered elsewhere since
                self._drop(id_)
            elif not publication.epoch:
                publication.epoch = node.instance.epoch
                self._outcomes.append(Outcome(self._leases[id_].owner, id_, node.instance.epoch))

    def _update(self, name: str, type_: ServiceType, version: int, instances: dict[str, Instance]) -> list[Change]:
        entry = self._names.get(name)
        is_new = entry is None
        if entry is None:
            entry = self._names[name] = _Name(type_, version)
        changed = is_new or entry.instances != instances or entry.type != type_
        for id_ in entry.instances.keys() - instances.keys():
            if self._homes.get(id_) == name:
                del self._homes[id_]
        self._homes.update(dict.fromkeys(instances, name))
        entry.type, entry.instances = type_, instances
        entry.version = max(entry.version, version)
        self._epoch = max(self._epoch, version)
        return [self._change(name)] if changed else []

    def _is_ours(self, node: str) -> bool:
        return node.rpartition("~")[2].partition(".")[0] == self._broker_id

    # --- instances of our sessions

    def register(
        self, now: float, owner: Hashable, name: str, type_: ServiceType, instance: Instance
    ) -> tuple[int, list[Change]]:
        """As Registry.register. The epoch is 0 while it is not known: an `Outcome` follows."""
        check_name("service", name)
        entry = self._names.get(name)
        if entry is not None and entry.type != type_ and entry.instances:
            raise wrong_type(name, entry.type, type_)
        publication = self._published.get(instance.id)
        same = publication is not None and (publication.name, publication.type, publication.instance) == (
            name,
            type_,
            instance,
        )
        if publication is not None and same:
            self._start_lease(now, owner, name, instance.id)
            return publication.epoch, []
        if instance.id not in self._homes and len(self._homes) >= self.limits.max_instances:
            raise RegistryFullError(
                f"the registry holds {self.limits.max_instances} instances, as many as it takes",
                "Stop instances that are not needed: `datacenter ls` shows them.",
            )
        size = len(msgspec.json.encode(instance))
        if size > MAX_NODE_BYTES:
            raise RegistryFullError(
                f"the registration of {name} has {size:,} bytes; ZooKeeper takes {MAX_NODE_BYTES:,}",
                "Give it less metadata, or fewer methods.",
            )
        if entry is None and name not in self._of_name:
            self._make_room_for_a_name()
        changes = self._remove(instance.id) if publication is not None else []
        self._made += 1
        node = f"{node_safe(instance.id)}~{self._broker_id}.{self._made}"
        self._published[instance.id] = _Publication(name, node, type_, instance)
        self._nodes[node] = instance.id
        self._of_name.setdefault(name, set()).add(instance.id)
        self._start_lease(now, owner, name, instance.id)
        self._order(Publish(name, node, type_, instance))
        return 0, changes

    def forward_drain(self, instance_id: str) -> None:
        """An instance of another broker's is to end in order."""
        for each in self._trees.get(self._homes.get(instance_id, ""), ("rpc", 0, ()))[2]:
            if each.instance.id == instance_id and not self._is_ours(each.node):
                self._order(ForwardDrain(each.node))

    def _remove(self, instance_id: str) -> list[Change]:
        name = self._leases[instance_id].name
        self._let_go(instance_id)
        return self._look_again(name) if name in self._trees else []

    def _drop(self, instance_id: str, error: DatacenterError | None = None) -> None:
        self._outcomes.append(Outcome(self._leases[instance_id].owner, instance_id, error=error))
        self._let_go(instance_id)

    def _let_go(self, instance_id: str) -> None:
        del self._leases[instance_id]
        publication = self._published.pop(instance_id)
        del self._nodes[publication.node]
        ids = self._of_name[publication.name]
        ids.discard(instance_id)
        if not ids:
            del self._of_name[publication.name]
        self._order(Withdraw(publication.name, publication.node))

    def _make_room_for_a_name(self) -> None:
        """Has the longest unused names without instance and watcher removed. Raises RegistryFullError."""
        most = self.limits.max_known_names
        excess = len(self._names.keys() | self._of_name.keys()) + 1 - most
        if excess <= 0:
            return
        idle = [
            name
            for name, entry in self._names.items()
            if not entry.instances and not entry.relay and name not in self._watchers and name not in self._of_name
        ]
        if not idle:
            raise RegistryFullError(
                f"the registry knows {most} names, as many as it takes",
                "Stop services that are not needed: `datacenter ls` shows them.",
            )
        for name in idle[:excess]:
            self._order(Forget(name))

    def _order(self, order: Order) -> None:
        key = order.node if isinstance(order, Publish | Withdraw) else order
        self._orders[key] = order

    # --- questions

    def resolve(self, name: str, type_: ServiceType) -> Resolution:
        resolution = super().resolve(name, type_)
        if name not in self._trees:
            self._order(Check(name))
        return resolution

    def find(self, target: str) -> Resolution:
        name = self._homes.get(target, target)
        entry = self._names.get(name)
        if entry is None:
            raise self._no_such(target)
        whole = self._resolution(name, entry.type)
        return whole if name == target else msgspec.structs.replace(whole, instances=(entry.instances[target],))

    def statistics(self) -> dict[str, int]:
        return {**super().statistics(), "instances": len(self._homes), "own_instances": len(self._published)}

    def set_relay(self, name: str, endpoint: str) -> list[Change]:
        entry = self._names.get(name)
        if entry is None or entry.relay == endpoint:
            return []
        entry.relay = endpoint  # this broker's alone: the version, which all share, stays
        return [self._change(name)]

    def _resolution(self, name: str, type_: ServiceType) -> Resolution:
        entry = self._names.get(name)
        if entry is None:
            return Resolution(name, type_, "settling", self._epoch)  # it is being checked
        return super()._resolution(name, type_)

    def expire(self, now: float, heard: Callable[[Hashable, str], float] | None = None) -> list[Change]:
        return [] if self.unavailable(now) is not None else super().expire(now, heard)


def node_safe(instance_id: str) -> str:
    """An instance's id as part of a node's name: without '/', control characters, and what ends the id there."""
    return "".join(
        sign
        if sign.isascii() and (sign.isalnum() or sign in "-_")
        else "".join(f"%{byte:02X}" for byte in sign.encode(errors="replace"))
        for sign in instance_id
    )
