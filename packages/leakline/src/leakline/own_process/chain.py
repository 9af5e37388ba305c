"""Who holds an object, in words: `item of a list of 40`, `attribute _pool of app.Client`, `global POOL of module app`.

Imports the standard library only, as it is also run inside other processes. No code of the program is run.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from types import CellType, CoroutineType, FrameType, FunctionType, GeneratorType, MethodType, ModuleType, TracebackType
from typing import Any, Protocol

from leakline.own_process.owners import GLOBALS, attributes, slots, type_name

_LISTS: tuple[type, ...] = (list, tuple, deque)
_SETS: tuple[type, ...] = (set, frozenset)
_SIZED = (dict, *_LISTS, *_SETS)
_LONGEST = 12  # links
_NAMES_OF: Any = type.__dict__["__dict__"]


class Known(Protocol):
    """What is known of roots, by id: words of the caller's, and names of modules."""

    known: Any
    modules: dict[int, str]
    sizes: dict[int, int]  # of containers, when they were first met: one that grows is the same for all that is in it


def told(path: Sequence[Any], roots: Known) -> tuple[str, ...]:
    """The links from path[0] outward to path[-1], each in words; none for an object that nobody holds."""
    links: list[str] = []
    at = 0
    if id(path[0]) in roots.known:
        return (roots.known[id(path[0])],)
    while at + 1 < len(path):
        inner, outer = path[at], path[at + 1]
        beyond = path[at + 2] if at + 2 < len(path) else None
        if id(outer) in roots.known:
            links.append(roots.known[id(outer)])
        elif type(outer) is dict and beyond is not None and _is_namespace(outer, beyond):
            links.append(
                _member(outer, inner, beyond) if not issubclass(type(beyond), type) else _of_class(inner, beyond)
            )
            at += 1
            if id(beyond) in roots.known:
                links.append(roots.known[id(beyond)])
        else:
            links.append(_link(inner, outer, roots))
        at += 1
    return tuple(links[:_LONGEST] if len(links) <= _LONGEST else [*links[: _LONGEST - 1], "…", links[-1]])


def _is_namespace(names: dict[Any, Any], of: Any) -> bool:
    if issubclass(type(of), type):
        return bool(_NAMES_OF.__get__(of).keys() == names.keys())
    return not issubclass(type(of), ModuleType) and attributes(of) is names


def _link(inner: Any, outer: Any, roots: Known) -> str:
    kind = type(outer)
    size = roots.sizes.setdefault(id(outer), len(outer)) if kind in _SIZED else 0
    if id(outer) in roots.modules:
        return f"global {_key(outer, inner)} of module {roots.modules[id(outer)]}"
    if kind is dict:
        name = f"global {_key(outer, inner)} of code without a module" if "__builtins__" in outer else ""
        return name or f"value of {_key(outer, inner)} in a dict of {size}"
    if kind in _LISTS:
        return f"item of a {type_name(kind)} of {size}"
    if kind in _SETS:
        return f"member of a {type_name(kind)} of {size}"
    if issubclass(kind, type):
        return _of_class(inner, outer)
    if issubclass(kind, ModuleType):
        return f"module {GLOBALS.__get__(outer).get('__name__')}"
    return _code(outer) or _member(attributes(outer) or {}, inner, outer)


def _of_class(inner: Any, outer: Any) -> str:
    return f"attribute {_key(_NAMES_OF.__get__(outer), inner)} of class {type_name(outer)}"


def _code(outer: Any) -> str:
    """Functions and what runs them; "" for other objects."""
    kind = type(outer)
    if kind is CellType:
        return "a variable of an enclosing function"
    if kind is FunctionType:
        return f"function {outer.__qualname__}"
    if kind is MethodType:
        return f"a method of {type_name(type(outer.__self__))}"
    if kind is GeneratorType or kind is CoroutineType:
        return f"{kind.__name__} {outer.__qualname__}"
    if kind is FrameType:
        return f"a local variable of {outer.f_code.co_name} ({outer.f_code.co_filename}:{outer.f_lineno})"
    return "a traceback" if kind is TracebackType else ""


def _member(names: Any, inner: Any, outer: Any) -> str:
    name = _name(names, inner) or _name(slots(outer), inner)
    return f"attribute {name} of {type_name(type(outer))}" if name else type_name(type(outer))


def _key(names: Any, inner: Any) -> str:
    return _name(names, inner) or "?"


def _name(names: Any, inner: Any) -> str:
    """The key of a value, if it is a plain one that can be shown without the program's code."""
    for key, value in list(names.items()):
        if value is inner:
            return (
                str(key) if type(key) is str else repr(key) if type(key) in (int, bytes, bool) else type_name(type(key))
            )
    return ""
