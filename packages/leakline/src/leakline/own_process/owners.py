"""Which Python object owns each descriptor of this process. Imports the standard library only: it is also run inside
other processes (`leakline.own_process.inside`).

No code of the program is run: methods are those of CPython's own types, called on the object as functions of C, and a
type is asked for by `type()`, never by `isinstance`, which a class can answer itself.
"""

from __future__ import annotations

import gc
import os
import sys
from collections import deque
from collections.abc import Callable, Collection, Iterator
from itertools import islice
from types import GetSetDescriptorType, MemberDescriptorType, ModuleType
from typing import Any

Reader = Callable[[Any], "int | None"]
_BATCH = 2_000  # containers whose contents are asked for at once
_OPENDIR = os.O_DIRECTORY | os.O_NONBLOCK
_UNTRACKED = (dict, tuple)  # the collector lets go of those whose contents it does not know either
_NAMES_OF: Any = type.__dict__["__dict__"]
GLOBALS: Any = vars(ModuleType)["__dict__"]  # the member itself: a lazy module loads itself when it is asked


def owners(numbers: Collection[int], expired: Callable[[], bool]) -> dict[int, Any]:
    """The object that closes each of these when it is closed or freed; numbers without one are left out.

    Looks at what the garbage collector knows, and at what that refers to: an epoll object is not known to it. What
    gc.freeze() has put aside is sought from the modules. An iterator of os.scandir() cannot be asked for its number:
    directories that opendir() opened, and these iterators, are paired in any order.
    """
    wanted = set(numbers)
    found: dict[int, Any] = {}
    iterators: dict[int, Any] = {}
    readers = Readers()
    scandir = _scandir()

    def ask(each: Any) -> None:
        if type(each) is scandir:
            iterators[id(each)] = each
            return
        reader = readers.of(type(each))
        if reader is not None and (number := reader(each)) in wanted:
            found.setdefault(number, each)

    known = gc.get_objects()
    for each in known:
        ask(each)
    rest = iter(known)
    while found.keys() != wanted and (batch := list(islice(rest, _BATCH))) and not expired():
        for each in gc.get_referents(*batch):
            ask(each)
            if type(each) in _UNTRACKED and not gc.is_tracked(each):
                for inner in gc.get_referents(each):
                    ask(inner)
    if gc.get_freeze_count() and found.keys() != wanted:
        for each, _ in below_modules(expired):
            ask(each)
    found.update(zip(sorted(opened_by_opendir(wanted - found.keys())), iterators.values(), strict=False))
    return found


def opened_by_opendir(numbers: Collection[int]) -> set[int]:
    """Those of this process's descriptors that have the flags of opendir(3), which nobody else gives a directory. They
    are never bare numbers of Python code: they belong to an iterator of os.scandir(), or to C code.
    """
    return {number for number in numbers if _flags(number) & _OPENDIR == _OPENDIR}


def _flags(number: int) -> int:
    """As open(2) had them; 0 of what is not open."""
    try:
        with open(f"/proc/self/fdinfo/{number}", encoding="ascii", errors="replace") as file:
            return next((int(line.split()[1], 8) for line in file if line.startswith("flags:")), 0)
    except OSError:
        return 0


def _scandir() -> type:
    """The type of os.scandir()'s iterators, which has no name in any module."""
    with os.scandir("/proc/self/fdinfo") as iterator:
        return type(iterator)


def below_modules(expired: Callable[[], bool]) -> Iterator[tuple[Any, Any]]:
    """Everything that can be reached from the globals of modules, nearest first, each with what it was reached from."""
    start: list[Any] = [GLOBALS.__get__(module) for module in modules().values()]
    queue = deque(start)
    met = {id(each) for each in start}
    met |= {id(met), id(queue), id(start)}
    while queue and not expired():
        each = queue.popleft()
        for inner in gc.get_referents(each):
            if id(inner) in met:
                continue
            met.add(id(inner))
            yield inner, each
            if gc.is_tracked(inner) or type(inner) in _UNTRACKED:
                queue.append(inner)


def modules() -> dict[str, ModuleType]:
    """The modules by name, the program itself as `__main__`."""
    found = list(sys.modules.items())
    return {name: each for name, each in found if type(name) is str and issubclass(type(each), ModuleType)}


class Readers:
    """How to ask an object of a type for its descriptor. Types are asked once each."""

    def __init__(self) -> None:
        self._known = _known_types()
        self._of: dict[type, Reader | None] = {}

    def of(self, kind: type) -> Reader | None:
        """None: objects of this type own no descriptor."""
        try:
            return self._of[kind]
        except KeyError:
            bases = type.__dict__["__mro__"].__get__(kind)
            found = next((self._known[base] for base in bases if base in self._known), None)
            self._of[kind] = found
            return found


def _known_types() -> dict[type, Reader]:
    """The types that own descriptors, of the modules that the program has loaded: none is imported for this."""
    known: dict[type, Reader] = {}
    for module, name, reader in (
        ("_socket", "socket", _by_method("fileno")),
        ("_io", "FileIO", _file),
        ("select", "epoll", _by_method("fileno")),
        ("multiprocessing.connection", "_ConnectionBase", _by_attribute("_handle")),
        ("multiprocessing.shared_memory", "SharedMemory", _by_attribute("_fd")),
    ):
        kind = getattr(sys.modules.get(module), name, None)
        if kind is not None:
            known[kind] = reader(kind)
    backend = sys.modules.get("zmq.backend.cython._zmq")  # not the one through cffi, whose calls may run Python code
    if backend is not None:
        known[backend.Socket] = _zmq_socket(backend.Socket)
    return known


def _by_method(name: str) -> Callable[[type], Reader]:
    def reader(kind: type) -> Reader:
        method = kind.__dict__[name]

        def read(owner: Any) -> int | None:
            try:
                return int(method(owner))
            except (ValueError, OSError):  # it was closed
                return None

        return read

    return reader


def _file(kind: type) -> Reader:
    number_of, closes = kind.__dict__["fileno"], kind.__dict__["closefd"]

    def read(owner: Any) -> int | None:
        try:
            return int(number_of(owner)) if closes.__get__(owner) else None
        except ValueError:
            return None

    return read


def _by_attribute(name: str) -> Callable[[type], Reader]:
    def read(owner: Any) -> int | None:
        value = (attributes(owner) or {}).get(name)
        return value if type(value) is int else None

    return lambda kind: read


def _zmq_socket(kind: type) -> Reader:
    """ZMQ_FD only reads a field of the socket, in any thread (libzmq 4.3.5 socket_base.cpp `getsockopt`), and the GIL
    keeps it from being closed meanwhile.
    """
    closed, get = kind.__dict__["closed"], kind.__dict__["get"]
    option = sys.modules["zmq"].FD

    def read(owner: Any) -> int | None:
        try:
            return None if closed.__get__(owner) else int(get(owner, option))
        except Exception:  # ZMQError: its context was terminated
            return None

    return read


def attributes(owner: Any) -> dict[str, Any] | None:
    """The `__dict__` of an object; None if it has none, or one that its class makes up."""
    for base in type.__dict__["__mro__"].__get__(type(owner)):
        found = _NAMES_OF.__get__(base).get("__dict__")
        if found is not None:
            made = found.__get__(owner) if type(found) is GetSetDescriptorType else None
            return made if type(made) is dict else None
    return None


def slots(owner: Any) -> dict[str, Any]:
    """The values of an object's `__slots__`."""
    found = {}
    for base in type.__dict__["__mro__"].__get__(type(owner)):
        for name, member in _NAMES_OF.__get__(base).items():
            if type(member) is MemberDescriptorType and name != "__weakref__":
                try:
                    found[name] = member.__get__(owner)
                except (AttributeError, TypeError):  # not set
                    continue
    return found


def type_name(kind: type) -> str:
    """`socket.socket`, `app.Client`, `list`."""
    module = type.__dict__["__module__"].__get__(kind)
    name = type.__dict__["__qualname__"].__get__(kind)
    return f"{module}.{name}" if type(module) is str and module != "builtins" else str(name)
