"""Incident D: the monitor of one session is taken down in the wrong order; no socket gives back its eventfd since.

    python -m casebook.d_reader_closed_first.broken

A process talks to one service over a session that it watches through a socket monitor, and asks a name server, with a
socket for each question, where other services are. The session ends; all goes on; but each question now leaves an
eventfd, although its socket is closed on every path.
"""

from __future__ import annotations

import time

import zmq
from casebook.nearby import Context, answering_server, paced, ready
from zmq.utils.monitor import recv_monitor_message

PER_S = 40
CALLS = 4


class Session:
    """One connection to a service, and the monitor that tells when it is up."""

    def __init__(self, context: Context, endpoint: str) -> None:
        self.socket = context.socket(zmq.DEALER)
        self.socket.linger = 0
        self.monitor = self.socket.get_monitor_socket()
        self.socket.connect(endpoint)
        while recv_monitor_message(self.monitor)["event"] != zmq.EVENT_HANDSHAKE_SUCCEEDED:
            pass

    def stop_watching(self) -> None:
        """It is up: nobody needs its events any more."""
        self.monitor.close()

    def work(self) -> None:
        """Some calls of the service, at the usual pace."""
        for _ in range(CALLS):
            self.socket.send(b"call")
            self.socket.recv()
            time.sleep(1 / PER_S)

    def end(self) -> None:
        """Closing the socket makes libzmq send a last event, MONITOR_STOPPED, from its reaper thread, to a pipe that
        has no reader any more: the reaper waits for ever.
        """
        self.socket.close()


class Names:
    """Asks the name server where services are."""

    def __init__(self, context: Context, endpoint: str) -> None:
        self.context = context
        self.endpoint = endpoint

    def ask(self) -> bytes:
        """Where a service is."""
        with self.context.socket(zmq.DEALER) as question:  # casebook: leaks
            question.linger = 0
            question.connect(self.endpoint)
            question.send(b"where?")
            return question.recv()


def main(session_type: type[Session] = Session, names_type: type[Names] = Names) -> None:
    endpoint = answering_server()
    context: Context = zmq.Context()
    names = names_type(context, endpoint)
    session = session_type(context, endpoint)
    session.stop_watching()
    session.work()
    session.end()
    ready()
    for _ in paced(PER_S):
        names.ask()


if __name__ == "__main__":
    main()
