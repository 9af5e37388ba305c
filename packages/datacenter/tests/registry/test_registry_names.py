"""What the registry keeps of a name that nobody serves: which type it may get, and which name is forgotten first."""

from __future__ import annotations

import pytest

from datacenter.errors import WrongTypeError
from datacenter.registry.state import Registry, RegistryLimits
from datacenter.wire import Instance


def make(limits: RegistryLimits | None = None) -> Registry:
    registry = Registry(lease_s=3.0, grace_s=0.0, started_at=0.0, first_epoch=0, limits=limits)
    registry.expire(0.0)
    return registry


def serve_for_a_moment(registry: Registry, name: str) -> None:
    registry.register(0.0, "s", name, "rpc", Instance(name, "tcp://127.0.0.1:1"))
    registry.unregister("s", name)


def test_a_name_that_nobody_serves_is_free_for_another_type() -> None:
    registry = make()
    registry.watch("w", "a", "rpc")
    serve_for_a_moment(registry, "a")
    _, (change,) = registry.register(1.0, "s", "a", "topic", Instance("i", "tcp://127.0.0.1:1"))
    assert (change.resolution.type, change.resolution.state, change.watchers) == ("topic", "live", ("w",))
    with pytest.raises(WrongTypeError, match="registered as topic"):
        registry.register(1.0, "s", "a", "rpc", Instance("j", "tcp://127.0.0.1:1"))
    registry.expire(4.0)  # its lease ends
    registry.register(4.0, "s", "a", "rpc", Instance("j", "tcp://127.0.0.1:1"))
    assert registry.resolve("a", "rpc").state == "live"


def test_listing_is_no_use_of_a_name() -> None:
    registry = make(RegistryLimits(max_known_names=2))
    for name in ("b", "a"):
        serve_for_a_moment(registry, name)
    assert [found.name for found in registry.services()] == ["a", "b"]
    serve_for_a_moment(registry, "c")
    assert [found.name for found in registry.services()] == ["a", "c"]  # b is the longest unused


def test_resolving_is_a_use_of_a_name() -> None:
    registry = make(RegistryLimits(max_known_names=2))
    for name in ("b", "a"):
        serve_for_a_moment(registry, name)
    assert registry.resolve("b", "rpc").state == "away"
    serve_for_a_moment(registry, "c")
    assert [found.name for found in registry.services()] == ["b", "c"]
