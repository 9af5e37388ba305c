"""What a descriptor that was left open is: its kind, its peer, the line that opened it, the object that keeps it.

Imported where something was left open: it takes what draws, names and describes.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any

import msgspec

from leakline import proc
from leakline.errors import LeaklineError
from leakline.facts import Descriptor, Frame, PythonHolder
from leakline.own_process.inside import held
from leakline.own_process.looks import Identity, look, sort_of
from leakline.own_process.recorder import OwnRecorder
from leakline.recorder.headline import headline_index
from leakline.rules.grouping import peer_of


class Leak(msgspec.Struct, frozen=True):
    """One descriptor that was left open. `peer`: what it leads to, in words. `frames[headline]` opened it: the
    innermost of the user's own code; the innermost frame comes first, none where nothing was recorded. `holder`: the
    object that keeps it, None where that is not known.
    """

    number: int
    kind: str
    peer: str
    frames: tuple[Frame, ...] = ()
    headline: int = 0
    holder: PythonHolder | None = None


class Describer:
    """Says what descriptors of this process are, and which line opened each. Not thread-safe.

    Keeps names between calls. Those of native functions take some tenths of a second the first time.
    """

    def __init__(self, recorder: OwnRecorder | None) -> None:
        self._recorder = recorder
        self._named: dict[int, tuple[Frame, ...]] = {}

    def leaks(self, numbers: Collection[int], known: Mapping[int, str] | None = None) -> tuple[Leak, ...]:
        """What these are, lowest number first; what was closed meanwhile is left out. `known` as in `inside.held`."""
        told: list[dict[str, Any]] = []
        with suppress(OSError):  # no descriptor left to read /proc with
            told, _ = held(numbers, known)  # first, as naming lines makes many objects
        holders = {each["number"]: msgspec.convert(each, PythonHolder) for each in told if each["state"] != "unknown"}
        opened_by = self._origins(numbers)
        return tuple(
            self._leak(each, opened_by.get(each.number, ()), holders.get(each.number))
            for each in _described(set(numbers))
        )

    def _leak(self, descriptor: Descriptor, frames: tuple[Frame, ...], holder: PythonHolder | None) -> Leak:
        at = headline_index(frames) if frames else 0
        return Leak(descriptor.number, descriptor.kind, peer_of(descriptor), frames, at, holder)

    def _origins(self, numbers: Collection[int]) -> dict[int, tuple[Frame, ...]]:
        if self._recorder is None:
            return {}
        # Names take libraries that are slow to import: only where something was left open.
        with suppress(OSError, LeaklineError):
            from leakline.recorder.origins import Namer
            from leakline.recorder.recording_file import read_recording

            recording = read_recording(self._recorder.path)
            with Namer(recording, known=self._named) as namer:
                return {slot.number: namer.frames(slot.stack) for slot in recording.slots if slot.number in numbers}
        return {}


def _described(numbers: set[int]) -> list[Descriptor]:
    """What these are; where no descriptor is left to read more, what their targets tell."""
    try:
        snapshot = proc.snapshot(os.getpid(), threads=False, libraries=False)
    except (OSError, LeaklineError):
        found = look(None).open
        return [
            Descriptor(each, _kind(each, found[each]), found[each].target) for each in sorted(numbers & found.keys())
        ]
    return [each for each in snapshot.descriptors if each.number in numbers]


def _kind(number: int, identity: Identity) -> str:
    with suppress(OSError):  # closed meanwhile
        mode = os.fstat(number).st_mode
        if stat.S_ISREG(mode):
            return "file"
        if stat.S_ISDIR(mode):
            return "directory"
        if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            return "device"
    return sort_of(identity)
