"""Our client of the demo: calls the service at a steady pace, and prints one JSON line of figures a second.

    python -m datacenter.demo.client tcp://127.0.0.1:7700 greeter.hello 32 10

It does what the naive client does: the same pace, the same reconnect interval, the same long outage.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

from datacenter.client import AsyncClient, ClientOptions
from datacenter.errors import DatacenterError
from datacenter.main_loop import run

DEADLINE_S = 2.0
REPORT_EVERY_S = 1.0


class Calls:
    """Counts how calls ended."""

    def __init__(self) -> None:
        self.answered = self.failed = self.pending = 0

    def ended(self, future: asyncio.Future[str]) -> None:
        """One call is over; what ended it otherwise than expected is a defect and must be seen."""
        self.pending -= 1
        error = None if future.cancelled() else future.exception()
        self.answered += error is None and not future.cancelled()
        self.failed += error is not None
        if error is not None and not isinstance(error, DatacenterError):
            raise error


async def call_at(pace: float, client: AsyncClient, target: str, calls: Calls, stop: asyncio.Event) -> None:
    """`pace` calls a second until `stop`; a call that waits for the service's return does not hold up the next."""
    due = time.monotonic()
    while not stop.is_set():
        calls.pending += 1
        client.call(target, "Ann", returns=str, deadline_s=DEADLINE_S).add_done_callback(calls.ended)
        due += 1 / pace
        await asyncio.sleep(max(0.0, due - time.monotonic()))


async def report(calls: Calls, stop: asyncio.Event) -> None:
    """A line a second until `stop`."""
    began = time.monotonic()
    while not stop.is_set():
        figures = {
            "t": round(time.monotonic() - began, 3),
            "calls": calls.answered,
            "failed": calls.failed,
            "pending": calls.pending,
        }
        print(json.dumps(figures), flush=True)
        await asyncio.sleep(REPORT_EVERY_S)


def main(broker: str, target: str, pace: float, reconnect_ms: int) -> None:
    """Runs until SIGTERM."""

    async def calling(stop: asyncio.Event) -> None:
        calls = Calls()
        options = ClientOptions(reconnect_min_ms=reconnect_ms, reconnect_max_ms=reconnect_ms)
        async with AsyncClient(broker, options=options) as client:
            reporting = asyncio.ensure_future(report(calls, stop))
            await call_at(pace, client, target, calls, stop)
            await reporting

    run(calling)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4]))
