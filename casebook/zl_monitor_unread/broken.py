"""A monitor that nobody reads, at the default reconnect interval: in two minutes it will block the I/O thread.

python -m casebook.zl_monitor_unread.broken
"""

from __future__ import annotations

import zmq
from casebook.nearby import Context, Socket, paced, ready
from zmq.utils.monitor import recv_monitor_message

PER_S = 20
NOWHERE = "tcp://127.0.0.1:1"


class Look:
    """Reads a monitor until the server is seen to be away."""

    def __init__(self, monitor: Socket) -> None:
        self.monitor = monitor
        self.over = False

    def read(self) -> None:
        """All that has come, until nothing more is to be learned."""
        while not self.over and self.monitor.poll(0):
            seen = {recv_monitor_message(self.monitor)["event"]}
            while self.monitor.poll(0):
                seen.add(recv_monitor_message(self.monitor)["event"])
            self.over = zmq.EVENT_CONNECT_RETRIED in seen


def main(look_type: type[Look] = Look) -> None:
    context: Context = zmq.Context()
    session = context.socket(zmq.DEALER)
    session.linger = 0
    look = look_type(session.get_monitor_socket())
    session.connect(NOWHERE)
    ready()
    for _ in paced(PER_S):
        session.poll(0)  # replies, when there are any
        look.read()


if __name__ == "__main__":
    main()
