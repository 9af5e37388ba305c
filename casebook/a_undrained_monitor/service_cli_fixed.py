"""The client of incident A, put right: still plain pyzmq, and only the lines that had to change.

    python -m casebook.a_undrained_monitor.service_cli_fixed tcp://127.0.0.1:7700 greeter.hello

1. The monitor is drained for as long as its socket lives, whatever happens on the connection.
2. One socket asks all questions. Each question has a number, so that a late answer is not taken for the next one.

Either alone keeps this program alive; the first also keeps its messages moving.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import zmq
from casebook.a_undrained_monitor.service_cli_demo import (
    ANSWER_TIMEOUT_MS,
    HELLO,
    RESOLVE,
    RESOLVED,
    ServerPort,
    ServiceClient,
    pack,
    run,
    unpack,
)
from zmq.utils.monitor import recv_monitor_message

REINTRODUCE = 3  # the datacenter restarted, or has not heard of us for long: say who you are


class FixedServiceClient(ServiceClient):
    """A ServiceClient that keeps its monitor drained, and one socket for its questions."""

    def __init__(self, broker: str, target: str, *reconnect_ivl_ms: str) -> None:
        super().__init__(broker, target, *reconnect_ivl_ms)
        self.question = 0
        self.query = self.context.socket(zmq.DEALER)
        self.query.linger = 0
        self.query.rcvtimeo = self.query.sndtimeo = ANSWER_TIMEOUT_MS
        self.query.connect(broker)
        self._introduce()

    def qry_server_port(self) -> ServerPort | None:
        """As before, over the one socket."""
        self.question += 1
        try:
            self.query.send(pack([RESOLVE, self.question, self.service, "rpc", False]))
            instances = self._numbered_answer()
        except zmq.Again:
            return None
        self.questions_answered += 1
        return ServerPort(instances[0][0], instances[0][1]) if instances else None

    def drain_monitor(self) -> None:
        """Reads what the monitor has to say. An outage is when it says the most: three events for each retry."""
        while self.monitor.poll(0):
            recv_monitor_message(self.monitor)

    def close(self) -> None:
        """Ends in the one safe order: stop the monitor while it can still be read, then its reader, then the socket."""
        self.socket.disable_monitor()
        self.monitor_timer.cancel()
        self.monitor.close()
        self.socket.close()
        self.query.close()
        self.context.term()

    def _introduce(self) -> None:
        self.query.send(pack([HELLO, 1, "0.1.0", os.getpid(), "localhost", "service_cli_fixed"]))

    def _numbered_answer(self) -> list[Any]:
        while True:
            answer: list[Any] = unpack(self.query.recv())
            if answer[0] == REINTRODUCE:
                self._introduce()
            elif answer[0] == RESOLVED and answer[1] == self.question:
                return list(answer[2][4])


if __name__ == "__main__":
    client = FixedServiceClient(*sys.argv[1:])
    try:
        run(client)
    except KeyboardInterrupt:
        client.close()
