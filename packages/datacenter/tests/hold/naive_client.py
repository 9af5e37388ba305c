"""A plain pyzmq client that does not read its sockets' monitors: what the sampler of hold-outages must catch.

Arguments: the number of sockets. Each is connected to a port where nobody listens, with a reconnect interval of 1 ms,
so that the 2 000 events that fit into a monitor's pipe are there soon.
"""

from __future__ import annotations

import sys

import zmq

from datacenter.testing import free_port


def main() -> None:
    context = zmq.Context()
    kept = []
    for _ in range(int(sys.argv[1])):
        socket = context.socket(zmq.DEALER)
        socket.setsockopt(zmq.RECONNECT_IVL, 1)
        kept.append((socket, socket.get_monitor_socket()))
        socket.connect(f"tcp://127.0.0.1:{free_port()}")
    print("ready", flush=True)
    sys.stdin.readline()


if __name__ == "__main__":
    main()
