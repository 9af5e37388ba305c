"""The registry's state machine against a model that is too simple to be wrong, over every order of events."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from datacenter.errors import NotServableError, RegistryFullError, WrongTypeError
from datacenter.registry.state import Registry, RegistryLimits
from datacenter.wire import Instance

LEASE_S = 3.0


def make(**changed: object) -> Registry:
    values: dict[str, object] = {"lease_s": LEASE_S, "grace_s": 6.0, "started_at": 0.0, "first_epoch": 1000}
    return Registry(**{**values, **changed})  # type: ignore[arg-type]


def instance(number: int = 1) -> Instance:
    return Instance(f"i{number}", f"tcp://127.0.0.1:{10_000 + number}")


def test_an_instance_lives_exactly_as_long_as_its_lease() -> None:
    registry = make()
    registry.register(10.0, "s1", "a", "rpc", instance())
    assert registry.next_deadline() == 6.0  # settling ends first
    assert registry.expire(12.999) == []
    assert registry.resolve("a", "rpc").state == "live"
    registry.renew(12.0, ["i1"])
    assert registry.expire(14.999) == []
    assert registry.next_deadline() == 15.0
    changes = registry.expire(15.0)
    assert [change.resolution.state for change in changes] == ["away"]
    assert registry.next_deadline() is None


def test_an_unknown_name_waits_while_settling_and_then_fails() -> None:
    registry = make()
    registry.watch("w", "a", "rpc")
    assert registry.resolve("a", "rpc").state == "settling"
    (change,) = registry.expire(6.0)
    assert (change.resolution.state, change.watchers) == ("unknown", ("w",))
    assert registry.resolve("a", "rpc").state == "unknown"


def test_a_name_keeps_its_type() -> None:
    registry = make()
    registry.register(0.0, "s", "a", "rpc", instance())
    with pytest.raises(WrongTypeError, match="registered as rpc"):
        registry.resolve("a", "topic")
    with pytest.raises(WrongTypeError):
        registry.register(0.0, "s", "a", "pipeline", instance(2))
    assert registry.statistics()["instances"] == 1


def test_an_instance_that_comes_back_moves_to_its_new_session() -> None:
    registry = make()
    first, _ = registry.register(0.0, "old", "a", "rpc", instance())
    second, _ = registry.register(1.0, "new", "a", "rpc", instance())
    assert second > first
    assert registry.unregister("old", "i1") == []
    assert registry.resolve("a", "rpc").instances[0].epoch == second
    assert registry.unregister("new", "i1") != []


def test_an_instance_that_changes_its_name_leaves_the_old_one() -> None:
    registry = make()
    registry.register(0.0, "s", "a", "rpc", instance())
    _, changes = registry.register(0.0, "s", "b", "rpc", instance())
    assert [(change.resolution.name, change.resolution.state) for change in changes] == [("a", "away"), ("b", "live")]


def test_limits_are_stated_and_held() -> None:
    limits = RegistryLimits(max_instances=2, max_known_names=2, max_watches_per_watcher=1)
    registry = make(limits=limits)
    registry.register(0.0, "s", "a", "rpc", instance(1))
    registry.register(0.0, "s", "b", "rpc", instance(2))
    with pytest.raises(RegistryFullError):
        registry.register(0.0, "s", "c", "rpc", instance(3))
    registry.unregister("s", "i1")
    registry.register(0.0, "s", "c", "rpc", instance(3))
    assert [found.name for found in registry.services()] == ["b", "c"]  # a was forgotten: the longest unused
    registry.watch("w", "b", "rpc")
    with pytest.raises(RegistryFullError):
        registry.watch("w", "c", "rpc")


def test_a_name_that_cannot_be_one_is_refused() -> None:
    with pytest.raises(NotServableError):
        make().register(0.0, "s", "no spaces", "rpc", instance())


def test_registering_again_and_again_does_not_make_the_heap_grow() -> None:
    registry = make()
    for turn in range(1000):
        registry.register(turn * 0.01, "s", "a", "rpc", instance())
        registry.unregister("s", "i1")
        registry.expire(turn * 0.01)
    assert len(registry._ends) < 400  # those of the last lease, no more


class AgainstAModel(RuleBasedStateMachine):
    """Model: instance id -> (name, owner, end of lease). Watchers know what they were told last."""

    def __init__(self) -> None:
        super().__init__()
        self.registry = make(grace_s=0.0)
        self.registry.expire(0.0)
        self.now = 0.0
        self.model: dict[str, tuple[str, str, float]] = {}
        self.known: set[str] = set()
        self.told: dict[tuple[str, str], tuple[str, ...]] = {}
        self.versions: dict[str, int] = {}
        self.epochs: list[int] = []

    ids = st.sampled_from(["i1", "i2", "i3"])
    names = st.sampled_from(["a", "b"])
    owners = st.sampled_from(["s1", "s2"])

    def _told(self, changes: list[object]) -> None:
        for change in changes:
            resolution = change.resolution  # type: ignore[attr-defined]
            assert resolution.version >= self.versions.get(resolution.name, 0)
            self.versions[resolution.name] = resolution.version
            for watcher in change.watchers:  # type: ignore[attr-defined]
                self.told[watcher, resolution.name] = tuple(sorted(found.id for found in resolution.instances))

    @rule(owner=owners, name=names, number=ids)
    def register(self, owner: str, name: str, number: str) -> None:
        epoch, changes = self.registry.register(self.now, owner, name, "rpc", Instance(number, "tcp://127.0.0.1:1"))
        self.model[number] = (name, owner, self.now + LEASE_S)
        self.known.add(name)
        self.epochs.append(epoch)
        self._told(changes)

    @rule(owner=owners, number=ids)
    def unregister(self, owner: str, number: str) -> None:
        self._told(self.registry.unregister(owner, number))
        if number in self.model and self.model[number][1] == owner:
            del self.model[number]

    @rule(number=ids)
    def renew(self, number: str) -> None:
        self.registry.renew(self.now, [number])
        if number in self.model:
            name, owner, _ = self.model[number]
            self.model[number] = (name, owner, self.now + LEASE_S)

    @rule(seconds=st.sampled_from([0.0, 0.5, 1.0, 2.9, 3.0, 3.1, 10.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self._told(self.registry.expire(self.now))
        self.model = {number: entry for number, entry in self.model.items() if entry[2] > self.now}

    @rule(watcher=st.sampled_from(["w1", "w2"]), name=names)
    def watch(self, watcher: str, name: str) -> None:
        self.registry.watch(watcher, name, "rpc")
        found = self.registry.resolve(name, "rpc")
        self.told[watcher, name] = tuple(sorted(one.id for one in found.instances))

    @precondition(lambda self: self.told)
    @rule(data=st.data())
    def unwatch(self, data: st.DataObject) -> None:
        watcher, name = data.draw(st.sampled_from(sorted(self.told)))
        self.registry.unwatch(watcher, name)
        del self.told[watcher, name]

    @rule(watcher=st.sampled_from(["w1", "w2"]))
    def forget(self, watcher: str) -> None:
        self.registry.forget_watcher(watcher)
        self.told = {key: value for key, value in self.told.items() if key[0] != watcher}

    @invariant()
    def resolves_what_the_model_says(self) -> None:
        for name in ("a", "b"):
            expected = tuple(sorted(number for number, entry in self.model.items() if entry[0] == name))
            found = self.registry.resolve(name, "rpc")
            assert tuple(sorted(one.id for one in found.instances)) == expected
            assert found.state == ("live" if expected else "away" if name in self.known else "unknown")
            for watcher in ("w1", "w2"):
                if (watcher, name) in self.told:
                    assert self.told[watcher, name] == expected

    @invariant()
    def epochs_only_grow(self) -> None:
        assert self.epochs == sorted(set(self.epochs))

    @invariant()
    def a_deadline_is_known_while_anything_lives(self) -> None:
        deadline = self.registry.next_deadline()
        if self.model:
            assert deadline is not None
            assert deadline <= min(end for _, _, end in self.model.values())

    @invariant()
    def nothing_is_kept_of_what_is_gone(self) -> None:
        assert self.registry.statistics()["instances"] == len(self.model)
        assert self.registry.statistics()["watched_names"] == len({name for _, name in self.told})


TestAgainstAModel = AgainstAModel.TestCase
TestAgainstAModel.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
