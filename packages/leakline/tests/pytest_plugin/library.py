"""Code under test that keeps descriptors for itself: caches, and a list that grows."""

from __future__ import annotations

import socket

CACHE: dict[str, socket.socket] = {}
GROWING: list[socket.socket] = []


def connection() -> socket.socket:
    if "it" not in CACHE:
        CACHE["it"] = socket.socket()
    return CACHE["it"]


def more() -> None:
    GROWING.append(socket.socket())


def replace() -> None:
    if "replaced" in CACHE:
        CACHE["replaced"].close()
    CACHE["replaced"] = socket.socket()
