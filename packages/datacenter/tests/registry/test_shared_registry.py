"""What one broker decides of a tree that others write too. Pure: the tree is told to it, and time is given."""

from __future__ import annotations

import pytest

from datacenter.broker.sessions import Sessions
from datacenter.errors import NoSuchServiceError, RegistryFullError, RegistryUnreachableError
from datacenter.registry.shared import (
    MAX_NODE_BYTES,
    Check,
    Forget,
    ForwardDrain,
    Node,
    Outcome,
    Publish,
    SharedRegistry,
    Withdraw,
    node_safe,
)
from datacenter.registry.state import RegistryLimits
from datacenter.wire import Hello, Instance, Refused, Shutdown, Welcome


def make(**limits: int) -> SharedRegistry:
    registry = SharedRegistry(lease_s=3.0, broker_id="me", limits=RegistryLimits(**limits))
    registry.synchronised = True
    registry.confirmed(1000.0)
    return registry


def instance(id_: str, epoch: int = 0) -> Instance:
    return Instance(id_, "tcp://127.0.0.1:7001", epoch=epoch)


def theirs(id_: str, epoch: int, type_: str = "rpc", broker: str = "other") -> Node:
    return Node(f"{id_}~{broker}.1", type_, instance(id_, epoch))  # type: ignore[arg-type]


def publish(registry: SharedRegistry, id_: str = "i", name: str = "a", type_: str = "rpc") -> Publish:
    epoch, _ = registry.register(0.0, b"owner", name, type_, instance(id_))  # type: ignore[arg-type]
    assert epoch == 0
    (order,) = [each for each in registry.orders() if isinstance(each, Publish)]
    return order


def seen(order: Publish, epoch: int) -> Node:
    return Node(order.node, order.type, instance(order.instance.id, epoch))


def test_a_registration_is_done_when_it_was_seen_and_its_epoch_is_that_of_the_tree() -> None:
    registry = make()
    order = publish(registry)
    assert registry.resolve("a", "rpc").state == "settling"
    assert registry.orders() == [Check("a")]
    (change,) = registry.seen("a", "rpc", 7, [seen(order, 7)])
    assert [one.epoch for one in change.resolution.instances] == [7]
    assert registry.outcomes() == [Outcome(b"owner", "i", 7)]
    assert registry.register(1.0, b"owner", "a", "rpc", instance("i")) == (7, [])  # renewed, and the same


def test_a_look_that_was_overtaken_changes_nothing() -> None:
    registry = make()
    registry.seen("a", "rpc", 9, [theirs("x", 9)])
    assert registry.seen("a", "rpc", 8, []) == []
    assert registry.resolve("a", "rpc").version == 9


def test_a_node_of_ours_that_nobody_holds_is_removed_and_never_told_of() -> None:
    registry = make()
    orphan = Node("i~me.77", "rpc", instance("i", 5))
    assert registry.seen("a", "rpc", 5, [orphan])[0].resolution.instances == ()
    assert registry.orders() == [Withdraw("a", "i~me.77")]


def test_who_registered_elsewhere_since_is_let_go_and_is_never_absent() -> None:
    registry = make()
    order = publish(registry)
    registry.seen("a", "rpc", 7, [seen(order, 7)])
    registry.outcomes()
    changes = registry.seen("a", "rpc", 8, [seen(order, 7), theirs("i", 8)])
    assert [[one.epoch for one in change.resolution.instances] for change in changes] == [[8]]
    assert registry.outcomes() == [Outcome(b"owner", "i")]
    assert registry.orders() == [Withdraw("a", order.node)]
    assert registry.owner_of("i") is None


def test_an_older_node_is_removed_by_who_sees_it_and_never_counts_again() -> None:
    """Its broker may be stopped: what it had not yet let go would come back when the younger one ends."""
    registry = make()
    registry.identify("tree")
    registry.seen("a", "rpc", 8, [theirs("i", 7), theirs("i", 8, broker="third")])
    assert registry.orders() == [Withdraw("a", "i~other.1")]
    (change,) = registry.seen("a", "rpc", 9, [theirs("i", 7)])
    assert change.resolution.instances == ()
    assert registry.orders() == [Withdraw("a", "i~other.1")]
    registry.reset()
    registry.identify("tree")
    registry.synchronised = True
    (change,) = registry.seen("a", "rpc", 10, [theirs("i", 7)])
    assert change.resolution.instances == ()
    (change,) = registry.seen("a", "rpc", 11, [theirs("i", 11)])
    assert [one.epoch for one in change.resolution.instances] == [11]
    registry.identify("another tree")
    registry.reset()
    registry.synchronised = True
    (change,) = registry.seen("a", "rpc", 3, [theirs("i", 3)])
    assert [one.epoch for one in change.resolution.instances] == [3]


def test_of_ours_an_older_node_than_the_youngest_ever_is_let_go() -> None:
    registry = make()
    order = publish(registry)
    registry.seen("a", "rpc", 7, [seen(order, 7)])
    registry.outcomes()
    registry.seen("a", "rpc", 8, [theirs("i", 8)])  # ours is not seen: somebody has removed it
    assert registry.outcomes() == [Outcome(b"owner", "i")]
    registry.orders()
    again = publish(registry)
    (change,) = registry.seen("a", "rpc", 9, [seen(again, 6)])
    assert change.resolution.instances == ()
    assert registry.outcomes() == [Outcome(b"owner", "i")]
    assert registry.orders() == [Withdraw("a", again.node)]


def test_a_node_that_somebody_removed_is_a_lost_registration() -> None:
    registry = make()
    order = publish(registry)
    registry.seen("a", "rpc", 7, [seen(order, 7)])
    registry.outcomes()
    (change,) = registry.seen("a", "rpc", 8, [])
    assert change.resolution.state == "away"
    assert registry.outcomes() == [Outcome(b"owner", "i")]


def test_of_two_types_at_once_the_older_registration_wins_at_every_broker() -> None:
    registry = make()
    order = publish(registry, type_="topic")
    registry.seen("a", "topic", 9, [seen(order, 9), theirs("x", 8)])
    (outcome,) = registry.outcomes()
    assert outcome.error is not None
    assert outcome.error.code == "wrong-type"
    found = registry.resolve("a", "rpc")
    assert [one.id for one in found.instances] == ["x"]


def test_a_lease_that_ends_takes_the_node_out() -> None:
    registry = make()
    order = publish(registry)
    registry.seen("a", "rpc", 7, [seen(order, 7)])
    assert registry.expire(2.9) == []
    (change,) = registry.expire(3.0)
    assert change.resolution.state == "away"
    assert registry.orders() == [Withdraw("a", order.node)]
    assert registry.seen("a", "rpc", 7, [seen(order, 7)]) == []  # it is still there; it is not told of again


def test_beyond_what_was_confirmed_nothing_is_known_and_everybody_is_sent_away_once() -> None:
    registry = make()
    registry._valid_until = 10.0
    welcome = Welcome(1, "0", "b", 1.0, 3, 3.0, 1024, 10)
    sessions = Sessions(registry, welcome, max_sessions=10)
    hello = Hello(1, "0", 1, "host", "process")
    assert registry.holds_s(9.0) == 1.0  # no longer than this broker itself is certain
    assert sessions.received(9.9, b"x", hello) == [(b"x", welcome)]
    registry.seen("a", "rpc", 7, [theirs("i", 7)])
    away, refused = sessions.received(10.0, b"y", hello)  # a process that was stopped looks at the clock first
    assert away == (b"x", Shutdown())
    assert isinstance(refused[1], Refused)
    assert refused[1].code == RegistryUnreachableError.code
    assert sessions.tick(10.1) == []
    registry.confirmed(20.0)
    assert registry.unavailable(11.0) is not None  # it must be read again first
    registry.synchronised = True
    assert registry.unavailable(11.0) is None
    assert registry.resolve("a", "rpc").state == "settling"


def test_an_unknown_name_is_told_of_only_after_a_check() -> None:
    registry = make()
    registry.watch("w", "a", "rpc")
    assert registry.resolve("a", "rpc").state == "settling"
    assert registry.orders() == [Check("a")]
    (change,) = registry.absent("a")
    assert (change.resolution.state, change.watchers) == ("unknown", ("w",))
    registry.seen("a", "rpc", 3, [theirs("i", 3)])
    assert registry.absent("a") == []  # another broker was quicker


def test_a_name_that_is_gone_from_the_tree_is_unknown() -> None:
    registry = make()
    registry.watch("w", "a", "rpc")
    registry.seen("a", "rpc", 3, [])
    assert registry.names(["b"])[-1].resolution.state == "unknown"
    with pytest.raises(NoSuchServiceError):
        registry.find("a")


def test_an_instance_of_another_broker_is_asked_to_drain_through_the_tree() -> None:
    registry = make()
    registry.seen("a", "rpc", 3, [theirs("i", 3)])
    assert registry.find("i").instances[0].epoch == 3
    registry.forward_drain("i")
    assert registry.orders() == [ForwardDrain("i~other.1")]


def test_limits_are_stated_and_held() -> None:
    registry = make(max_instances=1, max_known_names=1)
    registry.seen("a", "rpc", 3, [])
    order = publish(registry, name="b")  # "a" is idle: it makes room
    with pytest.raises(RegistryFullError, match="knows 0 names"):
        make(max_known_names=0).register(0.0, b"x", "a", "rpc", instance("i"))
    registry.seen("b", "rpc", 4, [seen(order, 4)])
    with pytest.raises(RegistryFullError, match="holds 1 instances"):
        registry.register(0.0, b"x", "b", "rpc", instance("j"))
    with pytest.raises(RegistryFullError, match="ZooKeeper takes"):
        make().register(0.0, b"x", "b", "rpc", Instance("k", "tcp://127.0.0.1:1", metadata={"x": "y" * MAX_NODE_BYTES}))


def test_an_idle_name_is_forgotten_to_make_room() -> None:
    registry = make(max_known_names=1)
    registry.seen("a", "rpc", 3, [])
    registry.register(0.0, b"x", "b", "rpc", instance("i"))
    assert Forget("a") in registry.orders()


def test_an_id_is_safe_in_a_nodes_name_and_stays_itself() -> None:
    ids = ["a-b_1", "a/b", "a~b.c", "../x", "é", "\0", "%2F", "a b"]
    safe = [node_safe(id_) for id_ in ids]
    assert len(set(safe)) == len(ids)
    assert safe[0] == "a-b_1"
    assert not any(set(each) & set("/~. \0") for each in safe)
