"""Who holds an object: a module, a class, a running function; or only a cycle that waits for the garbage collector.

Nothing is collected and nothing is changed. From the object outwards, `gc.get_referrers` finds what refers to it,
level by level, until something is met that lives by itself. If all referrers are known and none does, the references
are counted as the collector counts them: an object of that island with more references than the island itself has is
held by what the collector does not see (a local variable of a running function, C code); otherwise the island is
garbage.

Imports the standard library only, as it is also run inside other processes.
"""

from __future__ import annotations

import gc
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from types import FrameType, ModuleType
from typing import Any, NamedTuple

from leakline.own_process.chain import told
from leakline.own_process.owners import GLOBALS, below_modules, modules, type_name

MOST_OBJECTS = 20_000  # of one island
_AT_ONCE = 16  # objects whose referrers are asked for in one pass: each reference is compared with all of them
UNSEEN = "a local variable of a running function, or C code"


class Holding(NamedTuple):
    """`state` as in facts.PythonHolder, "unknown" if time ran out. `module`: of the global or class that holds it."""

    state: str
    chain: tuple[str, ...] = ()
    module: str = ""


def holding(owner: Any, roots: Roots, expired: Callable[[], bool], ours: set[int], own_references: int) -> Holding:
    """Who holds `owner`. `ours`: ids of our caller's containers. `own_references`: what `references` said."""
    island = Island(owner, roots, expired, ours)
    root = island.search()
    if root is not None:
        path = island.path(root)
        return Holding("retained", told(path, island.roots), island.roots.module_of(root))
    if island.incomplete:
        return Holding("unknown")
    held = island.held_from_outside(own_references)
    if held is None:
        return Holding("garbage", told(island.path(island.outermost()), island.roots))
    if gc.get_freeze_count():
        path = island.path_from_modules()
        if path:
            return Holding("retained", told(path, island.roots), island.roots.module_of(path[-1]))
    return Holding("retained", (*told(island.path(held), island.roots), UNSEEN))


def references(owner: Any, roots: Roots, expired: Callable[[], bool], ours: set[int]) -> int:
    """How many references to an owner are those of `holding` and its caller: of an object that nobody else has."""
    island = Island(owner, roots, expired, ours)
    return island.owner_references()


class Roots:
    """What lives by itself: modules, classes, running frames, and what the caller knows: `known`, by id, in words."""

    def __init__(self, known: Mapping[int, str]) -> None:
        self.known = known
        self.modules: dict[int, str] = {}
        self.sizes: dict[int, int] = {}
        for name, module in modules().items():
            self.modules.setdefault(id(GLOBALS.__get__(module)), name)
        self.frames: set[int] = set()
        for running in list(sys._current_frames().values()):
            frame: FrameType | None = running
            while frame is not None:
                self.frames.add(id(frame))
                frame = frame.f_back

    def has(self, each: Any) -> bool:
        """Whether it keeps alive what it refers to, whoever refers to it."""
        key = id(each)
        return (
            key in self.known
            or key in self.modules
            or key in self.frames
            or issubclass(type(each), (type, ModuleType))
            or (type(each) is dict and "__builtins__" in each)
        )

    def module_of(self, each: Any) -> str:
        """The name of the module whose globals these are, or that a class is of."""
        if issubclass(type(each), type):
            return type_name(each).rpartition(".")[0]
        return self.modules.get(id(each), "")


class Island:
    """An object and all that refers to it."""

    def __init__(self, owner: Any, roots: Roots, expired: Callable[[], bool], ours: set[int]) -> None:
        self.owner = owner
        self.roots = roots
        self.members: dict[int, Any] = {id(owner): owner}
        self.inner: dict[int, int] = {}  # id of a member -> id of the member that it refers to, towards the owner
        self.incomplete = False
        self._expired = expired
        self._ours = {*ours, id(self), id(self.__dict__), id(self.members)}

    def search(self) -> Any:
        """The nearest root that refers to the owner, directly or not; None if there is none, or `incomplete`."""
        if id(self.owner) in self.roots.known:
            return self.owner
        level = [self.owner]
        while level:
            if self._expired() or len(self.members) > MOST_OBJECTS:
                self.incomplete = True
                return None
            outer: list[Any] = []
            for start in range(0, len(level), _AT_ONCE):
                root = self._refer_to(tuple(level[start : start + _AT_ONCE]), outer, {id(level), id(outer)})
                if root is not None:
                    return root
            level = outer
        return None

    def _refer_to(self, batch: tuple[Any, ...], outer: list[Any], ours: set[int]) -> Any:
        """Adds all that refers to one of `batch`; returns a root that does, if there is one.

        `batch` is the very tuple that is passed on: 3.13 tells it as a referrer.
        """
        for each in gc.get_referrers(*batch):
            key = id(each)
            if key in self.members or key in self._ours or key in ours or each is batch or _is_ours(each):
                continue
            referents = {id(referent) for referent in gc.get_referents(each)}
            self.members[key] = each
            self.inner[key] = next((id(inner) for inner in batch if id(inner) in referents), id(batch[0]))
            if self.roots.has(each):
                return each
            outer.append(each)
        return None

    def owner_references(self) -> int:
        """All references to the owner, ours included."""
        return sys.getrefcount(self.owner)

    def held_from_outside(self, own_references: int) -> Any:
        """A member that has more references than the island accounts for, the innermost; None if there is none."""
        counted: Counter[int] = Counter()
        for each in self.members.values():
            counted.update(key for key in map(id, gc.get_referents(each)) if key in self.members)
        if self.owner_references() - own_references > counted[id(self.owner)]:
            return self.owner
        for probe in {"probe": object()}.values():
            ours = sys.getrefcount(probe)
        for each in self.members.values():
            if each is not self.owner and sys.getrefcount(each) - ours > counted[id(each)]:
                return each
        return None

    def outermost(self) -> Any:
        """Something that refers to the owner."""
        return self.members[next(iter(self.inner), id(self.owner))]

    def path(self, outer: Any) -> list[Any]:
        """From the owner outward to a member."""
        key = id(outer)
        found = [self.members[key]]
        while key in self.inner:
            key = self.inner[key]
            found.append(self.members[key])
        return found[::-1]

    def path_from_modules(self) -> list[Any]:
        """From the owner outward to the globals of a module, sought from there: `get_referrers` does not tell what
        gc.freeze() has put aside. Empty if time runs out.
        """
        came_from: dict[int, Any] = {}
        for each, outer in below_modules(self._expired):
            came_from[id(each)] = outer
            if id(each) in self.members:
                found = [outer]
                while id(found[-1]) in came_from:
                    found.append(came_from[id(found[-1])])
                return self.path(each) + found
        return []


def _is_ours(each: Any) -> bool:
    """Running frames are objects that refer to their variables up to Python 3.10."""
    return type(each) is FrameType and str(each.f_globals.get("__name__")).startswith("leakline.own_process")
