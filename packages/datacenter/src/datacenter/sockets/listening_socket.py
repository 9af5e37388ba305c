"""A TCP socket that listens, made here and handed to libzmq (ZMQ_USE_FD).

libzmq, asked to bind to a literal address, calls getifaddrs(), which needs a descriptor, and aborts if there is none
(ip_resolver.cpp:542): no check beforehand can exclude it while peers connect. Bound here, a lack of descriptors is an
OSError like every other. libzmq owns the descriptor from its bind on and closes it with the listener.
"""

from __future__ import annotations

import socket

from datacenter.sockets.addresses import Address


def make(address: Address, backlog: int) -> socket.socket:
    """Listening, not inherited over exec, never blocking. Raises OSError."""
    host, _, port = address.text.removeprefix("tcp://").rpartition(":")
    family = socket.AF_INET6 if address.ipv6 else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if address.ipv6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)  # [::] is for IPv4 too, as with libzmq
        made.bind((host.strip("[]").replace("*", ""), 0 if port == "*" else int(port)))
        made.listen(backlog)
    except BaseException:
        made.close()
        raise
    return made
