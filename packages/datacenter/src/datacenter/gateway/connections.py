"""A gateway's TCP connections: each is in the ledger while it is open, and ends when its peer has vanished."""

from __future__ import annotations

import asyncio
import contextlib
import socket

from datacenter.sockets import fork
from datacenter.sockets.ledger import Ledger


class Connections:
    """`adopt` a transport as it is made, `forget` it in its connection_lost. Lives in one event loop.

    silence_s: a peer that vanishes without a FIN (a host that died, a firewall that drops) ends the connection within
    about so many seconds: what was sent is not acknowledged (TCP_USER_TIMEOUT), or an idle one answers no keep-alive.
    """

    def __init__(self, ledger: Ledger, silence_s: float) -> None:
        self._ledger = ledger
        self._silence_s = silence_s

    def adopt(self, transport: asyncio.BaseTransport, owner: str) -> int:
        """Enters it into the ledger; returns its number."""
        sock: socket.socket = transport.get_extra_info("socket")
        number = sock.fileno()
        with fork.still():
            self._ledger.register(number, "tcp", owner)
        third = max(1, int(self._silence_s / 4))
        with contextlib.suppress(OSError):  # it was reset already, and ends by itself
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, third)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, third)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(self._silence_s * 1000))
        return number

    def forget(self, number: int) -> None:
        """It is closed when its connection_lost returns."""
        if number >= 0:
            with fork.still():
                self._ledger.forget(number)
