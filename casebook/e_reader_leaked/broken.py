"""Incident E: the reader of a monitor is closed when MONITOR_STOPPED comes; but by then nobody knows whose it is.

    python -m casebook.e_reader_leaked.broken

Servers come and go. The connection to each is watched by a monitor, and one loop reads all of them. `remove` forgets
the server and stops its monitor; the loop would close the reader at the last event, and finds no server of that name.
(In C++ the loop kept a pointer to it: a use after free.)
"""

from __future__ import annotations

from typing import NamedTuple

import zmq
from casebook.nearby import Context, Socket, answering_server, paced, ready
from zmq.utils.monitor import recv_monitor_message

PER_S = 3


class Server(NamedTuple):
    """A connection and its monitor's reader."""

    socket: Socket
    reader: Socket


class Servers:
    """All servers by name, and what their monitors say."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.servers: dict[str, Server] = {}
        self.readers: dict[Socket, str] = {}
        self.poller = zmq.Poller()

    def add(self, name: str, endpoint: str) -> None:
        """Connects to a server, and watches the connection."""
        socket = self.context.socket(zmq.DEALER)
        socket.linger = 0
        reader = self.watch(socket, name)
        socket.connect(endpoint)
        self.servers[name] = Server(socket, reader)
        self.readers[reader] = name
        self.poller.register(reader, zmq.POLLIN)

    def watch(self, socket: Socket, name: str) -> Socket:
        """The reader of a new monitor."""
        reader = self.context.socket(zmq.PAIR)  # casebook: leaks
        socket.monitor(f"inproc://{name}", zmq.EVENT_ALL)
        reader.connect(f"inproc://{name}")
        return reader

    def remove(self, name: str) -> None:
        """The server is gone. Its reader is closed by `read_events`, at its last event."""
        server = self.servers.pop(name)
        server.socket.disable_monitor()
        server.socket.close()

    def read_events(self) -> None:
        """Everything that the monitors have to say now."""
        while ready_now := self.poller.poll(0):
            for reader, _ in ready_now:
                event = recv_monitor_message(reader)
                if event["event"] == zmq.EVENT_MONITOR_STOPPED:
                    self.stopped(reader)

    def stopped(self, reader: Socket) -> None:
        """The last event of a monitor."""
        self.poller.unregister(reader)
        server = self.servers.pop(self.readers[reader], None)
        if server is not None:  # `remove` has taken it out already: it never is
            server.reader.close()


def main(servers_type: type[Servers] = Servers) -> None:
    endpoint = answering_server()
    servers = servers_type(zmq.Context())
    ready()
    for number in paced(PER_S):
        servers.add(f"server-{number}", endpoint)
        servers.read_events()
        servers.remove(f"server-{number}")
        servers.read_events()


if __name__ == "__main__":
    main()
