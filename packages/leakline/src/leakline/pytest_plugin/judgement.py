"""Whether what a test left open is a leak. Pure: facts in, a decision out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from leakline.facts import Frame
    from leakline.own_process.leaks import Leak

Allowed: TypeAlias = "str | Callable[[Leak], object]"
Verdict = Literal["leak", "allowed", "import", "cache", "fixture"]
FIXTURE = "the value of fixture "  # begins the end of a chain that leads to a fixture of a wider scope

MOST_OF_A_CACHE = 8  # descriptors that one line opens, and a module keeps, at its first use
# The frames of a module that is being imported: what it opens is kept as long as the module is, and opened once.
_IMPORTING = ("_find_and_load", "_load_unlocked", "exec_module", "_call_with_frames_removed")


class Judge:
    """Decides about what each test left open. `own_modules`: those of the tests, which keep no caches."""

    def __init__(self, own_modules: Collection[str]) -> None:
        self._own_modules = own_modules
        self._cached: set[Hashable] = set()

    def verdicts(self, leaks: Iterable[Leak], allowed: Iterable[Allowed]) -> list[tuple[Leak, Verdict]]:
        """What is to be thought of each descriptor that one test left open."""
        rules = list(allowed)
        decided = [(leak, _alone(leak, rules)) for leak in leaks]
        alike = Counter(self._way(leak) for leak, verdict in decided if verdict == "leak")
        first = {way for way, count in alike.items() if way and way not in self._cached and count <= MOST_OF_A_CACHE}
        self._cached.update(alike)
        return [
            (leak, "cache" if verdict == "leak" and self._way(leak) in first else verdict) for leak, verdict in decided
        ]

    def _way(self, leak: Leak) -> Hashable:
        """How it came to be kept by a module of the program; None if it was not. A default loop or a pool that fills at
        its first use comes one way once; what piles up comes the same way again.
        """
        holder = leak.holder
        if holder is None or holder.state != "retained" or not holder.module or holder.module in self._own_modules:
            return None
        return leak.kind, leak.frames[leak.headline] if leak.frames else holder.chain, holder.module


def _alone(leak: Leak, allowed: list[Allowed]) -> Verdict:
    if any(_allows(rule, leak) for rule in allowed):
        return "allowed"
    if opened_by_import(leak.frames):
        return "import"
    chain = leak.holder.chain if leak.holder is not None else ()
    return "fixture" if chain and chain[-1].startswith(FIXTURE) else "leak"


def without_runner(leak: Leak) -> Leak:
    """Without the frames of pytest that called the test: they are always the same."""
    end = next((at for at, frame in enumerate(leak.frames) if at > leak.headline and "/_pytest/" in frame.file), None)
    if end is None:
        return leak
    from msgspec.structs import replace  # a run without a leak does without it

    return replace(leak, frames=leak.frames[:end])


def opened_by_import(frames: Iterable[Frame]) -> bool:
    """Whether a module opened it while it was being imported, for the first and only time."""
    return any(frame.function in _IMPORTING and frame.file.startswith("<frozen importlib") for frame in frames)


def _allows(rule: Allowed, leak: Leak) -> bool:
    if callable(rule):
        return bool(rule(leak))
    names = [leak.kind, leak.peer]
    for frame in leak.frames:
        names += [frame.function, frame.file, frame.file.rpartition("/")[2]]
    return any(fnmatchcase(name, rule) for name in names)
