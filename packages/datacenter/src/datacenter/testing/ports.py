"""Free TCP ports below the ephemeral range.

A port inside it can be taken by any outgoing connection of the machine, and a client that keeps connecting to a dead
port inside it can end up connected to itself (libzmq #4599). So a server that is restarted needs one below.
"""

from __future__ import annotations

import random
import socket

_LOWEST = 10_000
_ATTEMPTS = 200


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nothing listens at now. Another process may take it before you do: retry, or let the server choose.

    Raises OSError if none of many random ones is free. Any thread.
    """
    lowest, first_ephemeral = _LOWEST, _ephemeral_start()
    for _ in range(_ATTEMPTS):
        port = random.SystemRandom().randrange(lowest, first_ephemeral)
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            # A port whose connections are still in TIME_WAIT can be bound by libzmq, which sets the same option.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return port
    raise OSError(f"no free port at {host} between {lowest} and {first_ephemeral} in {_ATTEMPTS} attempts")


def _ephemeral_start() -> int:
    try:
        with open("/proc/sys/net/ipv4/ip_local_port_range") as file:
            return max(_LOWEST + 1000, int(file.read().split()[0]))
    except (OSError, ValueError, IndexError):
        return 32_768
