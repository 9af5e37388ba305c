"""What every registry does, whoever keeps it: the same for one in memory, in ZooKeeper, and for two brokers of one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from datacenter import wire
from registry_books import LEASE_S, LIMITS, Party

Parties = Callable[[str], Party]


async def test_who_registers_is_found_and_told_of(parties: Parties) -> None:
    service, client = parties("service"), parties("client")
    assert (await client.watches("a")).state == "unknown"
    epoch = await service.registers("i1")
    told = await client.is_told("a", "i1")
    found = await client.watches("a")
    for resolution in (told, found):
        (instance,) = resolution.instances
        assert (resolution.state, instance.epoch, instance.endpoint) == ("live", epoch, "tcp://127.0.0.1:10001")
        assert instance.metadata == {"zone": "é"}


async def test_a_name_that_was_served_is_away_and_not_unknown(parties: Parties) -> None:
    service, client = parties("service"), parties("client")
    await service.registers("i1")
    assert (await client.watches("a")).state in ("live", "unknown")  # another broker may hear a moment later
    await service.unregisters("i1")
    assert (await client.is_told("a")).state == "away"
    assert (await client.watches("a")).state == "away"


async def test_who_says_goodbye_leaves_at_once_with_everything(parties: Parties) -> None:
    service, client = parties("service"), parties("client")
    await client.watches("a")
    await service.registers("i1")
    await service.registers("i2")
    await client.is_told("a", "i1", "i2")
    service.silent()
    service.say(wire.Bye())
    await client.is_told("a")


async def test_who_is_silent_leaves_when_its_lease_ends_and_others_stay(parties: Parties) -> None:
    first, client, second = parties("first"), parties("client"), parties("second")
    await client.watches("a")
    await first.registers("i1")
    await second.registers("i2")
    await client.is_told("a", "i1", "i2")
    silent_since = time.monotonic()
    first.silent()
    await client.is_told("a", "i2")
    assert time.monotonic() - silent_since > LEASE_S * 0.8  # the last sign of life was up to a sixth before
    await asyncio.sleep(0)
    assert [one.id for one in (await client.watches("a")).instances] == ["i2"]


async def test_epochs_grow_and_versions_never_go_back(parties: Parties) -> None:
    service, client = parties("service"), parties("client")
    await client.watches("a")
    epochs, versions = [], []
    for _ in range(3):
        epochs.append(await service.registers("i1"))
        versions.append((await client.is_told("a", "i1")).version)
        await service.unregisters("i1")
        versions.append((await client.is_told("a")).version)
    epochs.append(await service.registers("i2", "b"))
    assert epochs == sorted(set(epochs))
    assert versions == sorted(versions)  # a broker tells a removal of its own before the tree has numbered it


async def test_an_instance_that_comes_back_belongs_to_its_new_session(parties: Parties) -> None:
    old, client, new = parties("old"), parties("client"), parties("new")
    await client.watches("a")
    first = await old.registers("i1")
    await client.is_told("a", "i1")
    second = await new.registers("i1")
    assert second >= first
    await old.unregisters("i1")
    old.say(wire.Bye())
    assert [one.epoch for one in (await client.watches("a")).instances] == [second]
    await new.unregisters("i1")
    await client.is_told("a")


async def test_an_instance_that_comes_back_elsewhere_is_never_gone_meanwhile(parties: Parties) -> None:
    old, new = parties("old"), parties("new")  # of two brokers: one at each
    client = parties("client")
    await client.watches("a")
    first = await old.registers("i1")
    await client.is_told("a", "i1")
    second = await new.registers("i1")
    await new.registers("i2")
    seen = []
    found = await client.watches("a")
    while [one.id for one in found.instances] != ["i1", "i2"]:
        found = (await client.hears(wire.Changed)).resolution
        seen.append(sorted(one.id for one in found.instances))
    assert [] not in seen
    assert second >= first


async def test_a_name_has_one_type_while_it_is_served(parties: Parties) -> None:
    service, other = parties("service"), parties("other")
    await service.registers("i1")
    assert await other.is_refused("i2", type_="topic") == "wrong-type"
    assert (await other.watches("a")).state == "live"
    await service.unregisters("i1")
    await other.is_told("a")
    assert await other.registers("i2", type_="topic") > 0


async def test_several_who_register_at_the_same_moment_are_all_there(parties: Parties) -> None:
    services = [parties(f"service{number}") for number in range(3)]
    client = parties("client")
    await client.watches("a")
    epochs = await asyncio.gather(*(each.registers(f"i{number}") for number, each in enumerate(services)))
    assert len(set(epochs)) == 3
    found = await client.is_told("a", "i0", "i1", "i2")
    assert [one.epoch for one in found.instances] == sorted(epochs)


async def test_a_full_registry_says_so(parties: Parties) -> None:
    service, other = parties("service"), parties("other")
    for number in range(LIMITS.max_instances):
        await service.registers(f"i{number}", f"n{number}")
    while len(await other.lists()) < LIMITS.max_instances:
        pass  # another broker may hear a moment later
    assert await other.is_refused("late") == "registry-full"
    await service.unregisters("i0")
    await service.registers("i0", "a")


async def test_who_does_not_watch_any_more_is_told_nothing(parties: Parties) -> None:
    service, client, other = parties("service"), parties("client"), parties("other")
    for each in (client, other):
        await each.watches("a")
    client.say(wire.Unwatch("a"))
    await service.registers("i1")
    await other.is_told("a", "i1")
    await client.watches("b")
    answers = [each for each in client.heard() if isinstance(each, wire.Changed) and each.resolution.name == "a"]
    assert answers == []


async def test_an_instance_is_asked_to_drain_wherever_it_is_registered(parties: Parties) -> None:
    service, client = parties("service"), parties("client")
    await client.watches("a")
    await service.registers("i1")
    await client.is_told("a", "i1")
    answer = await client.asks(lambda number: wire.Drain(number, "i1"), wire.Draining)
    assert [one.id for one in answer.service.instances] == ["i1"]
    assert (await service.hears(wire.DrainRequested)).instance_id == "i1"


async def test_all_services_are_listed(parties: Parties) -> None:
    service, client = parties("service"), parties("client")
    await service.registers("i1", "b")
    await service.registers("i2", "a")
    while len(names := await client.lists()) < 2:
        pass  # another broker may hear a moment later
    assert names == ["a", "b"]


async def test_a_heartbeat_that_asks_is_told_how_long_its_leases_hold(parties: Parties) -> None:
    service = parties("service")
    await service.registers("i1")
    service.say(wire.Heartbeat(7))
    answer = await service.hears(wire.BrokerHeartbeat, lambda heartbeat: heartbeat.number)
    assert answer.number == 7
    assert 0 < answer.holds_s <= LEASE_S
