"""A TCP socket that listens, made here and handed to libzmq (ZMQ_USE_FD).

libzmq, asked to bind to a literal address, calls getifaddrs(), which needs a descriptor, and aborts if there is none
(ip_resolver.cpp:542): no check beforehand can exclude it while peers connect. Bound here, a lack of descriptors is an
OSError like every other. libzmq owns the descriptor from its bind on and closes it with the listener.
"""

from __future__ import annotations

import socket

from datacenter.sockets.addresses import Address
from datacenter.sockets.ledger import Ledger


def make(address: Address, backlog: int, ledger: Ledger) -> int:
    """The number of a socket that listens, not inherited over exec, never blocking. Raises OSError.

    In the ledger (for the owner of `with ledger.owner(…)`) from its first moment: a child that C code forks meanwhile
    would keep the port.
    """
    host, _, port = address.text.removeprefix("tcp://").rpartition(":")
    family = socket.AF_INET6 if address.ipv6 else socket.AF_INET
    kind = socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    made = socket.socket(fileno=ledger.open_socket(family, kind))
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if address.ipv6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)  # [::] is for IPv4 too, as with libzmq
        made.bind((host.strip("[]").replace("*", ""), 0 if port == "*" else int(port)))
        made.listen(backlog)
    except BaseException:
        ledger.close_number(made.detach())
        raise
    return made.detach()
