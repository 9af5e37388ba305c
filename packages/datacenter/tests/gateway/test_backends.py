"""Who gets the next connection: pure."""

from __future__ import annotations

from datacenter.gateway.backends import Backends
from datacenter.wire import Instance


def instance(name: str, port: int, health: str = "healthy") -> Instance:
    return Instance(name, f"tcp://127.0.0.1:{port}", metadata={"health": health})


def test_the_one_with_the_fewest_connections_and_equals_take_turns() -> None:
    backends = Backends()
    assert backends.choose() is None
    backends.update([instance("a", 1), instance("b", 2)])
    chosen = []
    for _ in range(6):
        backend = backends.choose()
        assert backend is not None
        backends.opened(backend)
        chosen.append(backend.id)
    assert sorted(chosen) == ["a", "a", "a", "b", "b", "b"]
    first = next(backend for backend in backends.known() if backend.id == "b")
    backends.closed(first)
    assert backends.choose() == first


def test_a_quiet_one_gets_none_and_one_that_left_is_told_of() -> None:
    backends = Backends()
    backends.update([instance("a", 1), instance("b", 2, "quiet")])
    assert {backends.choose().id for _ in range(4)} == {"a"}  # type: ignore[union-attr]
    assert backends.choose({"a"}) is None
    backend = backends.choose()
    assert backend is not None
    backends.opened(backend)
    assert backends.update([instance("b", 2)]) == (backend,)
    assert backends.connections() == {"a": 1, "tcp://127.0.0.1:2": 0}
    backends.closed(backend)
    assert backends.connections() == {"tcp://127.0.0.1:2": 0}


def test_the_ends_of_an_address() -> None:
    backends = Backends()
    backends.update([Instance("six", "tcp://[::1]:6379"), Instance("path", "ipc:///tmp/x")])
    (six,) = backends.known()
    assert (six.host, six.port) == ("::1", 6379)
