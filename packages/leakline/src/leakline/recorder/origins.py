"""Which lines opened these descriptors: the raw stacks of a recording as named, merged, grouped origins."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from types import TracebackType

import msgspec

from leakline.facts import Frame, Origin
from leakline.recorder.headline import by_headline as by_headline
from leakline.recorder.headline import headline as headline
from leakline.recorder.headline import headline_index, joined, largest_first
from leakline.recorder.merge import SIGNAL_FRAME, Call, Evaluated, evaluates, is_interpreter, merge
from leakline.recorder.modules import DEBUG_FOLDERS
from leakline.recorder.process_identity import start_time_ticks
from leakline.recorder.python_lines import line_of
from leakline.recorder.recording import PythonFrame, Recording, Stack
from leakline.recorder.symbols import Symbolizer

_UNREADABLE = Frame(function="a Python frame that could not be read", file="", line=0, language="python")


def origins(recording: Recording, numbers: Iterable[int], *, pid: int | None = None) -> tuple[Origin, ...]:
    """The origins of these descriptors, one for each stack, largest first. See `Namer`."""
    with Namer(recording, pid=pid) as namer:
        return namer.origins(numbers)


class Namer:
    """Names the stacks of one recording, each once. Holds files open until it is closed. Not thread-safe.

    `now_s` (monotonic): the moment that the recording was read, from which ages count; None: found out. `pid`: the
    process as this namespace knows it, if that is another number than the recording's (a container). While it is alive,
    its files are found in its own tree, also when they were deleted. `known`: the frames of stacks by number, from an
    earlier reading of the same recording; what is named here is added.
    """

    def __init__(
        self,
        recording: Recording,
        *,
        pid: int | None = None,
        now_s: float | None = None,
        known: dict[int, tuple[Frame, ...]] | None = None,
        debug_folders: Iterable[str] = DEBUG_FOLDERS,
    ) -> None:
        self._recording = recording
        self._now_s = now_s
        pid = recording.pid if pid is None else pid
        alive = recording.live and start_time_ticks(pid) == recording.start_time_ticks
        self._symbolizer = Symbolizer(
            recording.libraries,
            pid=pid if alive else None,
            unchanged_since_s=_since_the_epoch(recording.began_at_s),
            debug_folders=debug_folders,
        )
        self._frames = {} if known is None else known
        self._calls: dict[tuple[int, int, bool], Call] = {}
        self._evaluated: dict[PythonFrame, Evaluated] = {}
        self._one: dict[Frame, Frame] = {}  # equal frames are one object

    def __enter__(self) -> Namer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the files. Idempotent."""
        self._symbolizer.close()

    @property
    def notes(self) -> tuple[str, ...]:
        """What could not be named, and why, in words."""
        return tuple(self._symbolizer.notes)

    def origins(self, numbers: Iterable[int]) -> tuple[Origin, ...]:
        """The origins of these descriptors, one for each stack, largest first; with the frames merged and named.

        A number that the recording does not have, or whose stack it does not know, is left out.
        """
        wanted = set(numbers)
        stacks = Counter(slot.stack for slot in self._recording.slots if slot.number in wanted)
        groups: dict[tuple[int, ...], list[Origin]] = {}
        for number, count in stacks.items():
            frames = self.frames(number)
            if frames:
                # Equal frames are one object here, and to hash tens of thousands of whole stacks takes seconds.
                group = groups.setdefault(tuple(map(id, frames)), [])
                group.append(self._origin(self._recording.stacks[number], count, frames))
        return largest_first(msgspec.structs.replace(joined(group), stacks=1) for group in groups.values())

    def come_and_go(self, least: int, most: int) -> tuple[Origin, ...]:
        """The stacks of which most descriptors were closed, at least `least`, at most `most` stacks."""
        closed = [stack for stack in self._recording.stacks.values() if stack.closed >= least]
        closed.sort(key=lambda stack: -stack.closed)
        named = [(stack, self.frames(stack.number)) for stack in closed[:most]]
        return tuple(self._origin(stack, stack.alive, frames) for stack, frames in named if frames)

    def frames(self, number: int) -> tuple[Frame, ...]:
        """The frames of a stack by its number, innermost first; empty if it is not known."""
        stack = self._recording.stacks.get(number)
        if stack is None:
            return ()
        if number not in self._frames:
            python = [self._python(frame) for frame in stack.python]
            self._frames[number] = merge(self._native(stack), python, stack.flags)
        return self._frames[number]

    def _native(self, stack: Stack) -> list[Call]:
        calls: list[Call] = []
        exact = False
        for index, pc in enumerate(stack.native):
            number = stack.libraries[index] if index < len(stack.libraries) else 0
            key = (pc, number, exact)
            call = self._calls.get(key)
            if call is None:
                call = self._calls[key] = self._call(*key)
            calls.append(call)
            # A signal came between two instructions: the frame under it has no call to go back to.
            exact = call.frames[-1].function == SIGNAL_FRAME
        return calls

    def _call(self, pc: int, number: int, exact: bool) -> Call:
        library = self._recording.libraries.get(number)
        interpreter = library is not None and is_interpreter(library.path)
        frames = self._symbolizer.frames(pc, number, exact=exact, lines=not interpreter)
        runs = any(start <= pc - 1 < end for start, end in self._recording.eval_ranges)
        return Call(
            tuple(self._one.setdefault(frame, frame) for frame in frames),
            evaluates=runs or any(evaluates(frame.function) for frame in frames),
        )

    def _python(self, raw: PythonFrame) -> Evaluated:
        evaluated = self._evaluated.get(raw)
        if evaluated is None:
            frame = _UNREADABLE
            code = self._recording.codes.get(raw.code)
            if code is not None:
                line = line_of(code, raw.instruction) or code.first_line
                frame = Frame(function=code.name, file=code.file, line=line, language="python")
            evaluated = self._evaluated[raw] = Evaluated(self._one.setdefault(frame, frame), raw.entry)
        return evaluated

    def _origin(self, stack: Stack, count: int, frames: tuple[Frame, ...]) -> Origin:
        now = self._now()
        seconds = now - self._recording.began_at_s
        return Origin(
            count=count,
            frames=frames,
            headline=headline_index(frames),
            opened=stack.opened,
            closed=stack.closed,
            oldest_s=max(0.0, now - stack.first_at_s),
            newest_s=max(0.0, now - stack.last_at_s),
            per_second=stack.alive / seconds if seconds > 0 else None,
        )

    def _now(self) -> float:
        """The moment that the recording speaks of: of a process that was killed, when it last opened something."""
        if self._now_s is not None:
            return self._now_s
        if self._recording.ended_at_s is not None:
            return self._recording.ended_at_s
        if self._recording.live:
            return time.monotonic()
        return max((stack.last_at_s for stack in self._recording.stacks.values()), default=self._recording.began_at_s)


def _since_the_epoch(monotonic_s: float) -> float | None:
    """A moment of the monotonic clock on the wall's, which files have; None if it is of an earlier boot."""
    passed = time.monotonic() - monotonic_s
    return time.time() - passed if passed >= 0 else None
