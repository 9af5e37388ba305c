"""A supervisor in this process, with a real fork server behind it."""

from __future__ import annotations

import asyncio

import pytest

from datacenter import options
from datacenter.prefork import supervisor
from datacenter.prefork.pool import PoolOptions
from datacenter.prefork.serving import Settings
from datacenter.prefork.supervisor import Plan, Supervisor

DEADLINE_S = 60.0


def test_it_ends_when_it_is_told_to_not_when_something_else_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Told while its fork server starts: it had looked at that with its next tick only, and had said that it serves."""
    monkeypatch.setattr(supervisor, "TICK_S", 3600.0)
    monkeypatch.setattr(options, "START_DEADLINE_S", 3600.0)
    settings = Settings(
        broker="tcp://127.0.0.1:1", targets=["datacenter.demo.greeter:greeter"], listen="tcp://127.0.0.1:0"
    )
    plan = Plan(
        "datacenter.prefork.serving:prepare",
        "datacenter.prefork.serving:main",
        "",
        settings,
        0.5,
        PoolOptions(start_deadline_s=3600.0),
    )
    ready: list[list[str]] = []

    async def main() -> None:
        made = Supervisor(plan, places=1, on_ready=ready.append)
        stop = asyncio.Event()
        life = asyncio.create_task(made.run(stop))
        await asyncio.sleep(0)
        assert [worker["state"] for worker in made.statistics()["workers"]] == ["starting"]
        stop.set()
        await asyncio.wait_for(life, DEADLINE_S)

    asyncio.run(main())
    assert ready == []
