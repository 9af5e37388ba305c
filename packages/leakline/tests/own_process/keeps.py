"""Keeps descriptors in every way, and prints what leakline says of each, by name. Runs on each Python."""

from __future__ import annotations

import gc
import json
import multiprocessing.connection
import os
import select
import selectors
import socket
from collections.abc import Callable, Iterator
from typing import Any

from leakline.own_process.inside import held

NUMBERS: dict[str, int] = {}


class Client:
    """Has a socket."""

    def __init__(self, name: str) -> None:
        self._socket = socket.socket()
        NUMBERS[name] = self._socket.fileno()
        self.other: Any = None


class Slotted:
    """Has a socket, and no dictionary."""

    __slots__ = ("socket",)

    def __init__(self) -> None:
        self.socket = socket.socket()
        NUMBERS["slot"] = self.socket.fileno()


class Pool:
    """Keeps a file for all its objects."""

    POOL = (open("/etc/passwd"),)  # noqa: SIM115
    NUMBERS["class"] = POOL[0].fileno()


class Hostile(socket.socket):
    """None of this may run."""

    @property
    def __class__(self) -> Any:
        os._exit(66)

    def fileno(self) -> int:
        os._exit(67)

    def __getattribute__(self, name: str) -> Any:
        os._exit(68)

    def __eq__(self, other: object) -> bool:
        os._exit(69)

    __hash__ = None  # type: ignore[assignment]


def cycle() -> None:
    first = Client("cycle")
    first.other = first


def long_cycle() -> None:
    first = Client("long cycle")
    middle = {"first": [first]}
    first.other = lambda: middle


def waits() -> Iterator[None]:
    inside = socket.socket()
    NUMBERS["generator"] = inside.fileno()
    yield
    inside.close()


def walks(name: str) -> Iterator[str]:
    for each in os.scandir("/usr"):
        NUMBERS[name] = next(number for number in range(3, 999) if to(number) == "/usr")
        yield each.name


def to(number: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{number}")
    except FileNotFoundError:
        return ""


def encloses() -> Callable[[], Any]:
    enclosed = socket.socket()
    NUMBERS["closure"] = enclosed.fileno()
    return lambda: enclosed


gc.disable()
FROZEN = [socket.socket()]
NUMBERS["frozen"] = FROZEN[0].fileno()
gc.freeze()
KEPT = Client("global")
LISTED = [1, 2, Slotted()]
SELECTOR = selectors.DefaultSelector()
NUMBERS["selector"] = SELECTOR.fileno()
UNTRACKED = {"epoll": select.epoll()}
NUMBERS["untracked"] = UNTRACKED["epoll"].fileno()
RECEIVER, SENDER = multiprocessing.connection.Pipe()
NUMBERS["connection"] = RECEIVER.fileno()
GENERATOR = waits()
next(GENERATOR)
WALK = walks("scandir")
next(WALK)
CLOSURE = encloses()
HOSTILE = Hostile()
NUMBERS["hostile"] = socket.socket.fileno(HOSTILE)
NUMBERS["number"] = os.open("/etc/passwd", os.O_RDONLY)
NUMBERS["directory"] = os.open("/etc", os.O_RDONLY)
NUMBERS["detached"] = socket.socket().detach()
cycle()
long_cycle()


def main() -> None:
    local = socket.socket()
    NUMBERS["local"] = local.fileno()
    also = Client("local cycle")
    also.other = also
    names = {number: name for name, number in NUMBERS.items()}
    found, incomplete = held(list(names), budget_s=30.0)
    print(json.dumps({names[each["number"]]: each for each in found}))
    assert incomplete == []


main()
os._exit(0 if __import__("sys").stdout.flush() is None else 1)  # what is hostile is not asked to close
