"""Raw pyzmq through a `zmq.proxy`: the barest relay there is, as the ceiling of the relay route.

The client and the server are those of `bench.systems.raw_pyzmq`; a ROUTER/DEALER proxy in a process of its own stands
between them. Run as a program this file is that proxy: `python -m bench.systems.raw_proxy FRONT_PORT BACK_PORT`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import zmq

from bench.loops import Loop
from bench.systems import Command, python_server, raw_pyzmq


class RawProxy(raw_pyzmq.RawPyzmq):
    """Adaptor, see `bench.systems.System`. The proxy's back end has the port after the one given."""

    def server_commands(self, port: int, loop: Loop) -> Sequence[Command]:
        return [
            [sys.executable, "-m", __name__, str(port), str(port + 1)],
            python_server(raw_pyzmq.__name__, port + 1, loop, raw_pyzmq.BEHIND_PROXY),
        ]


def main() -> None:
    front_port, back_port = sys.argv[1:]
    with zmq.Context() as context, context.socket(zmq.ROUTER) as front, context.socket(zmq.DEALER) as back:
        front.set_hwm(0)
        back.set_hwm(0)
        front.bind(f"tcp://127.0.0.1:{front_port}")
        back.bind(f"tcp://127.0.0.1:{back_port}")
        zmq.proxy(front, back)  # until a signal ends the process


if __name__ == "__main__":
    main()
