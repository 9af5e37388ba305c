"""A client that calls without pause and writes down the end of every call. Arguments: see --help.

On its standard input: "rest" (no new calls; says {"rest": {...}} once all have ended), "go", "next" (says "next" once a
call that begins from now on was answered), "end". Each end of a call is a line `CALL METHOD OUTCOME LATE_S PID` in the
file given. LATE_S: after its deadline (negative: before), less what this process's loop was late by itself meanwhile (a
busy machine). PID: of who answered, or 0.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
from collections import Counter, deque
from typing import Any

from datacenter import AsyncClient, ClientOptions
from datacenter.errors import DatacenterError, DeadlineError

UNTYPED = "UNTYPED"
TICK_S = 0.01
TICKS = 1000
SHOWN = 20


class Lag:
    """How late the loop itself is: a timer every TICK_S, and when it really came."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.ticks: deque[tuple[float, float]] = deque(maxlen=TICKS)  # (due, late)
        self.loop.call_at(self.loop.time() + TICK_S, self.tick, self.loop.time() + TICK_S)

    def tick(self, due: float) -> None:
        now = self.loop.time()
        self.ticks.append((due, now - due))
        self.loop.call_at(now + TICK_S, self.tick, now + TICK_S)

    def since(self, when: float) -> float:
        """The most that a timer due from `when` on was late, the one that is due now included."""
        late = [late for due, late in self.ticks if due + late >= when]
        now = self.loop.time()
        return max(late, default=0.0) + max(0.0, now - (sum(self.ticks[-1]) if self.ticks else now) - TICK_S)


class Load:
    """Keeps `in_flight` calls going while it is not resting. `ends` counts the ends of each call by its name."""

    def __init__(self, client: AsyncClient, wanted: argparse.Namespace, log: Any) -> None:
        self.client = client
        self.wanted = wanted
        self.log = log
        self.counts: Counter[str] = Counter()
        self.latest_s = float("-inf")
        self.longest_s = 0.0  # of an answered call
        self.too_late: list[tuple[str, str]] = []  # call, error
        self.open: dict[str, int] = {}  # calls that have not ended
        self.ended_twice = 0
        self.number = 0
        self.going = asyncio.Event()
        self.going.set()
        self.idle = 0
        self.lag = Lag()
        self.answer: asyncio.Future[int] | None = None  # of "next": ends with a call that began since
        self.workers = [asyncio.create_task(self.work()) for _ in range(wanted.in_flight)]

    async def work(self) -> None:
        while True:
            if not self.going.is_set():
                self.idle += 1
                await self.going.wait()
                self.idle -= 1
            await self.one()

    async def one(self) -> None:
        self.number += 1
        call = f"{self.wanted.route}-{os.getpid()}-{self.number}"
        method = random.choice(self.wanted.methods)
        deadline_s = random.uniform(*self.wanted.deadline_s)
        nap_s = random.uniform(0, self.wanted.nap_s) if random.random() < 0.8 else 0.0
        loop = asyncio.get_running_loop()
        due = loop.time() + deadline_s
        answer = self.answer
        future = self.client.call(f"accounted.{method}", call, nap_s, returns=int, deadline_s=deadline_s)
        self.open[call] = 0
        future.add_done_callback(lambda _: self.ended(call))
        pid = 0
        try:
            pid = await future
            outcome = "answered"
            self.longest_s = max(self.longest_s, loop.time() - due + deadline_s)
            if answer is not None and not answer.done():
                answer.set_result(pid)
        except DeadlineError as error:
            outcome = "DeadlineError,sent" if error.sent else "DeadlineError,unsent"
            if len(self.too_late) < SHOWN:
                self.too_late.append((call, error.message))
        except DatacenterError as error:
            outcome = type(error).__name__
        except Exception as error:
            outcome = f"{UNTYPED}:{type(error).__name__}"
        late_s = loop.time() - due
        if late_s > 0:
            late_s = max(0.0, late_s - self.lag.since(due))
        self.latest_s = max(self.latest_s, late_s)
        self.counts[outcome] += 1
        self.log.write(f"{call} {method} {outcome} {late_s:.3f} {pid}\n")

    def ended(self, call: str) -> None:
        if self.open.pop(call, None) is None:
            self.ended_twice += 1

    async def next_answer(self) -> None:
        self.answer = asyncio.get_running_loop().create_future()
        await self.answer
        self.answer = None

    async def rest(self) -> dict[str, Any]:
        self.going.clear()
        end = asyncio.get_running_loop().time() + self.wanted.deadline_s[1] + 10
        while self.idle < len(self.workers) and asyncio.get_running_loop().time() < end:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        self.log.flush()
        statistics = self.client.statistics()
        counts, self.counts = dict(self.counts), Counter()
        return {
            "counts": counts,
            "latest_s": self.latest_s,
            "longest_s": self.longest_s,
            "too_late": self.too_late,
            "hung": len(self.workers) - self.idle,
            "not_ended": len(self.open),
            "ended_twice": self.ended_twice,
            "in_flight": statistics["in_flight"],
            "waiting": statistics["waiting"],
            "resent": statistics["resent"],
        }


async def main(wanted: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    words: asyncio.Queue[str] = asyncio.Queue()
    loop.add_reader(sys.stdin.fileno(), lambda: words.put_nowait(sys.stdin.readline().strip()))
    options = ClientOptions(route=wanted.route)
    with open(wanted.log, "w") as log:  # noqa: ASYNC230 - a local file
        async with AsyncClient(wanted.broker, options=options) as client:
            await client.call("accounted.again", "first", 0.0, deadline_s=20)
            load = Load(client, wanted, log)
            print("loading", flush=True)
            while (word := await words.get()) not in ("end", ""):
                if word == "go":
                    load.going.set()
                elif word == "next":
                    await load.next_answer()
                    print("next", flush=True)
                else:
                    print(json.dumps({"rest": await load.rest()}), flush=True)
            for worker in load.workers:
                worker.cancel()
            await asyncio.gather(*load.workers, return_exceptions=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("broker")
    parser.add_argument("log", help="the file for the ends of calls")
    parser.add_argument("--route", choices=("auto", "direct", "relay"), default="auto")
    parser.add_argument("--in-flight", type=int, default=20)
    parser.add_argument("--nap-s", type=float, default=0.0, help="longest duration of an execution")
    parser.add_argument("--deadline-s", type=float, nargs=2, default=(10.0, 10.0), help="shortest and longest")
    parser.add_argument("--methods", nargs="+", default=["once"])
    asyncio.run(main(parser.parse_args()))
