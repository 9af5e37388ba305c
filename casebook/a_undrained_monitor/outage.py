"""The outage of incident A: a real broker, and a service that dies in the middle of its fifth call and stays away.

    python -m casebook.a_undrained_monitor.outage

Prints `ready BROKER TARGET RECONNECT_MS`, the arguments of the client. Ends when its stdin does.
"""

from __future__ import annotations

import itertools
import os
import sys

from casebook.runner.expectation import REPOSITORY

from datacenter import Service
from datacenter.testing import Launcher

DIES_IN_CALL = 5
RECONNECT_MS = 1  # the monitor is full after a second, instead of ten

greeter = Service("greeter")
_calls = itertools.count(1)


@greeter.method
def hello(name: str) -> str:
    """Greet somebody, as long as it can."""
    if next(_calls) == DIES_IN_CALL:
        os._exit(1)
    return f"Hello, {name}!"


def main() -> None:
    with Launcher(cwd=REPOSITORY) as launch:
        broker = launch.broker()
        launch.service("casebook.a_undrained_monitor.outage:greeter", broker)
        print(f"ready {broker.address} greeter.hello {RECONNECT_MS}", flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
