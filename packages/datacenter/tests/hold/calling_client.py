"""A client that calls without pause through every outage. Arguments: BROKER [insecure]. Says on its standard output,
one JSON object a line:

{"instance": PID, "at": T}   the first answer of another instance (T: time.monotonic())
{"rest": {...}}              after the word "rest" on its standard input: nothing is in flight; counts since the last
rest Words on its standard input: "rest", "go", "end".
"""

from __future__ import annotations

import concurrent.futures
import json
import sys
import threading
import time
from collections import Counter
from typing import Any

from datacenter import Client, ClientOptions, DatacenterError
from datacenter.errors import DeadlineError

DEADLINE_S = 2.0
IN_FLIGHT = 8
PAUSE_S = 0.002


class Caller:
    """Keeps `IN_FLIGHT` calls going while it is not resting, and takes note of how each ended."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.resting = threading.Event()
        self.going = threading.Event()
        self.going.set()
        self.instance = 0
        self.counts: Counter[str] = Counter()
        self.latest_s = 0.0  # how late after its deadline a call ended, at worst
        self.threads = [threading.Thread(target=self.run, args=(number,), daemon=True) for number in range(IN_FLIGHT)]
        self.lock = threading.Lock()
        self.idle = 0
        for thread in self.threads:
            thread.start()

    def run(self, number: int) -> None:
        target = "shop.pid" if number % 2 else "shop.pid_again"
        while True:
            if not self.going.is_set():
                with self.lock:
                    self.idle += 1
                self.going.wait()
                with self.lock:
                    self.idle -= 1
            began = time.monotonic()
            outcome = self.one(target)
            late_s = time.monotonic() - began - DEADLINE_S
            with self.lock:
                self.counts[outcome] += 1
                self.latest_s = max(self.latest_s, late_s)
            time.sleep(PAUSE_S)

    def one(self, target: str) -> str:
        try:
            instance = self.client.call(target, deadline_s=DEADLINE_S, returns=int)
        except DeadlineError as error:
            return "DeadlineError, sent" if error.sent else "DeadlineError, not sent"
        except DatacenterError as error:
            return type(error).__name__
        except concurrent.futures.CancelledError:
            return "UNTYPED CancelledError"
        except Exception as error:
            return f"UNTYPED {error!r}"
        with self.lock:
            new, self.instance = instance != self.instance, instance
            if new:
                say({"instance": instance, "at": time.monotonic()})
        return "answered"

    def rest(self) -> dict[str, Any]:
        self.going.clear()
        limit = time.monotonic() + DEADLINE_S + 10
        while self.idle < len(self.threads) and time.monotonic() < limit:
            time.sleep(0.01)
        statistics = self.client.statistics()
        seen = {"counts": dict(self.counts), "latest_s": self.latest_s, "hung": len(self.threads) - self.idle}
        self.counts.clear()
        return seen | {"in_flight": statistics["in_flight"], "waiting": statistics["waiting"]}


def say(what: dict[str, Any]) -> None:
    print(json.dumps(what), flush=True)


def main() -> None:
    options = ClientOptions(reconnect_min_ms=10, insecure="insecure" in sys.argv[2:])
    with Client(sys.argv[1], options=options) as client:
        caller = Caller(client)
        for line in sys.stdin:
            word = line.strip()
            if word == "rest":
                say({"rest": caller.rest()})
            elif word == "go":
                caller.going.set()
            elif word == "end":
                caller.rest()
                return


if __name__ == "__main__":
    main()
