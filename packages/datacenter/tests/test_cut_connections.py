"""Connections that are reset in the midst of many calls: none is executed twice, whatever libzmq does by itself.

Between the client and its instance stands a TCP forwarder that resets connections and accepts again at once. The
client reconnects without pause, and its loop is kept busy for longer than that: libzmq has then made the next
connection of the same socket by itself, and calls were sent on it, before the client hears that the former one ended.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from datacenter import AsyncClient, ClientOptions
from datacenter.errors import DeadlineError, LostError
from datacenter.testing import Launcher, free_port
from forwarder import Forwarder

RESETS = 100
CALLS = 40  # at each
WITHOUT_PAUSE = ClientOptions(route="direct", reconnect_min_ms=1, reconnect_max_ms=2)
ACCOUNT = """
import os
from datacenter import Service
account = Service("account")
log = os.open("executed", os.O_WRONLY | os.O_APPEND | os.O_CREAT)


@account.method
async def pay(call: int, payload: bytes) -> int:
    os.write(log, f"{call}\\n".encode())
    return call
"""


@pytest.fixture
def forwarder() -> Iterator[Forwarder]:
    made = Forwarder(free_port())
    yield made
    made.close()


def test_a_call_is_not_executed_twice_when_connections_are_cut(forwarder: Forwarder, tmp_path: Path) -> None:
    (tmp_path / "account.py").write_text(ACCOUNT)
    outcomes: dict[int, str] = {}

    async def pay(client: AsyncClient, call: int) -> None:
        payload = bytes(random.choice((0, 0, 20_000)))  # large ones fill the way, so that others wait in libzmq
        try:
            assert await client.call("account.pay", call, payload, deadline_s=5) == call
            outcomes[call] = "answered"
        except LostError:
            outcomes[call] = "lost"
        except DeadlineError as error:
            outcomes[call] = "late, sent" if error.sent else "late, unsent"

    async def main(address: str) -> None:
        async with AsyncClient(address, options=WITHOUT_PAUSE) as client:
            await pay(client, -1)
            calls: list[asyncio.Task[None]] = []

            def some() -> None:
                numbers = range(len(calls), len(calls) + CALLS)
                calls.extend([loop.create_task(pay(client, number)) for number in numbers])

            loop = asyncio.get_running_loop()
            for number in range(RESETS):
                if number % 3 == 0:
                    forwarder.hold()
                some()
                await asyncio.sleep(random.uniform(0, 0.01))
                forwarder.reset()
                if number % 2:  # libzmq reconnects; nobody here hears of it, and calls are sent on
                    time.sleep(0.02)  # noqa: ASYNC251 - on purpose
                    some()
                    await asyncio.sleep(0)
                    time.sleep(0.005)  # noqa: ASYNC251
            await asyncio.gather(*calls)

    with Launcher(cwd=tmp_path) as launch:
        broker = launch.broker()
        advertised = f"tcp://127.0.0.1:{forwarder.port}"
        service = launch.service(
            "account:account",
            broker,
            listen=f"tcp://127.0.0.1:{forwarder.target}",
            options=("--advertise", advertised),
        )
        asyncio.run(main(broker.address))
        assert service.end() == 0
    executed = Counter(int(line) for line in (tmp_path / "executed").read_text().splitlines())
    assert {call: count for call, count in executed.items() if count > 1} == {}
    assert "answered" not in {outcome for call, outcome in outcomes.items() if call not in executed}
    assert "late, unsent" not in {outcomes[call] for call in executed}
    counts = Counter(outcomes.values())
    print(counts, len(executed), forwarder.accepted)
    assert counts["lost"] > RESETS, counts
    assert counts["answered"] > RESETS, counts
    assert forwarder.accepted > RESETS / 2
