"""What a recording says of a process, named and grouped: the raw recording and a look at /proc in, facts out."""

from __future__ import annotations

import errno
import time
from collections import Counter, defaultdict
from collections.abc import Iterable

from leakline.facts import Alive, Frame, Recorded, Snapshot, WrongClosed
from leakline.recorder.headline import headline_index
from leakline.recorder.origins import Namer, by_headline
from leakline.recorder.reconcile import reconcile
from leakline.recorder.recording import Recording, Slot, WrongClose

UNKNOWN_KIND = "descriptor"
COME_AND_GO_LEAST = 10  # descriptors that a stack opened and that were closed: fewer are no habit
COME_AND_GO_MOST = 8  # stacks; each costs some names
# What a function makes, where it makes one kind only: for a process that is gone, whose descriptors nobody can ask.
_KINDS = {
    "socket": "socket", "socketpair": "unix", "accept": "socket", "accept4": "socket", "recvmsg": UNKNOWN_KIND,
    "pipe": "pipe", "pipe2": "pipe", "popen": "pipe", "eventfd": "eventfd", "epoll_create": "epoll",
    "epoll_create1": "epoll", "inotify_init": "inotify", "inotify_init1": "inotify", "timerfd_create": "timerfd",
    "signalfd": "signalfd", "memfd_create": "memfd", "pidfd_open": "pidfd", "opendir": "directory",
    "openpty": "pty", "posix_openpt": "pty", "getpt": "pty", "forkpty": "pty", "shm_open": "file",
}  # fmt: skip
_FILES = ("open", "openat", "creat", "fopen", "freopen", "tmpfile", "mkstemp", "mkostemp", "_IO_fopen", "__open")


def recorded(
    recording: Recording,
    snapshot: Snapshot | None,
    *,
    seen: Snapshot | None = None,
    known: dict[int, tuple[Frame, ...]] | None = None,
) -> Recorded:
    """All that is told of a recording. `snapshot`: the process's descriptors then, None if it has ended.

    `seen`: an earlier look at the process, for the kinds of what was open still. `known`: as `Namer` has it.

    Reads the files that the code came from; seconds for a process with much debug information.
    """
    now = _now(recording, snapshot)
    found = reconcile(recording, snapshot)
    look = snapshot or seen
    groups: dict[str, list[Slot]] = defaultdict(list)
    older: Counter[str] = Counter()
    inherited: Counter[str] = Counter()
    for slot, kind in _with_kinds(found.slots, look):
        if slot.how == "older":
            older[kind] += 1
        elif slot.how == "inherited":
            inherited[kind] += 1
        else:
            groups[kind].append(slot)
    with Namer(recording, now_s=now, known=known) as namer:
        half = (recording.began_at_s + now) / 2
        alive = [each for kind, slots in groups.items() for each in _alive(namer, kind, slots, half)]
        alive.sort(key=lambda each: -each.origin.count)
        wrong = _wrong_closes(namer, recording.wrong_closes, now)
        come_and_go = namer.come_and_go(COME_AND_GO_LEAST, COME_AND_GO_MOST)
        first = _own_first(namer.frames(recording.exhausted.stack))
        notes = namer.notes
    return Recorded(
        path=recording.path,
        mode=recording.mode,
        seconds=max(0.0, now - recording.began_at_s),
        live=recording.live,
        opened=recording.opened,
        closed=recording.closed,
        alive=tuple(alive),
        older=dict(older.most_common()),
        inherited=dict(inherited.most_common()),
        outside=dict(Counter(each.kind for each in found.outside).most_common()),
        wrong_closes=wrong,
        come_and_go=come_and_go,
        exhausted=recording.exhausted.count,
        exhausted_error=errno.errorcode.get(recording.exhausted.error, ""),
        exhausted_at=first,
        incomplete=(*_incomplete(recording), *notes),
    )


def _with_kinds(slots: Iterable[Slot], look: Snapshot | None) -> list[tuple[Slot, str]]:
    """Each slot with its kind: as it was looked at, else that of others which the same stack opened, else as far as the
    function tells.
    """
    kinds = {} if look is None else {each.number: each.kind for each in look.descriptors}
    seen: list[tuple[Slot, str | None]] = []
    by_stack: dict[int, Counter[str]] = defaultdict(Counter)
    for slot in slots:
        kind = kinds.get(slot.number) if look is not None and slot.opened_at_s <= look.at else None
        seen.append((slot, kind))
        if kind is not None:
            by_stack[slot.stack][kind] += 1
    alike = {stack: counted.most_common(1)[0][0] for stack, counted in by_stack.items() if stack}
    return [(slot, kind or alike.get(slot.stack) or kind_of(slot.function)) for slot, kind in seen]


def kind_of(function: str) -> str:
    """The kind of what an intercepted function makes, as far as its name tells."""
    if function in _KINDS:
        return _KINDS[function]
    return "file" if function.startswith(_FILES) else UNKNOWN_KIND


def _alive(namer: Namer, kind: str, slots: list[Slot], half_s: float) -> list[Alive]:
    """One for each line. `half_s`: the moment in the middle of the recording."""
    failed: dict[Frame, Counter[str]] = defaultdict(Counter)
    recent: Counter[Frame] = Counter()
    for slot in slots:
        frames = namer.frames(slot.stack)
        if not frames:
            continue
        line = frames[headline_index(frames)]
        recent[line] += slot.opened_at_s >= half_s
        if number := slot.bind_error or slot.connect_error:
            failed[line][errno.errorcode.get(number, str(number))] += 1
    found = by_headline(namer.origins(slot.number for slot in slots))
    lines = [(origin, origin.frames[origin.headline]) for origin in found]
    return [Alive(kind, origin, dict(failed.get(line, {})), recent[line]) for origin, line in lines]


def _wrong_closes(namer: Namer, closes: Iterable[WrongClose], now: float) -> tuple[WrongClosed, ...]:
    """One for each distinct story, the last one first."""
    groups: dict[tuple[object, ...], list[WrongClose]] = defaultdict(list)
    for close in closes:
        groups[close.kind, close.stack, close.earlier_close_stack, close.open_stack].append(close)
    told = [
        WrongClosed(
            number=group[-1].number,
            kind=group[-1].kind,
            count=len(group),
            closed_by=_own_first(namer.frames(group[-1].stack)),
            closed_before_by=_own_first(namer.frames(group[-1].earlier_close_stack)),
            opened_by=_own_first(namer.frames(group[-1].open_stack)),
            seconds_ago=max(0.0, now - group[-1].at_s),
        )
        for group in groups.values()
    ]
    return tuple(sorted(told, key=lambda each: each.seconds_ago))


def _own_first(frames: tuple[Frame, ...]) -> tuple[Frame, ...]:
    """The frames from the headline outward."""
    return frames[headline_index(frames) :] if frames else ()


def _now(recording: Recording, snapshot: Snapshot | None) -> float:
    if snapshot is not None:
        return snapshot.at
    if recording.ended_at_s is not None:
        return recording.ended_at_s
    last = max((stack.last_at_s for stack in recording.stacks.values()), default=recording.began_at_s)
    return min(last, time.monotonic())


def _incomplete(recording: Recording) -> tuple[str, ...]:
    """In words, what the recorder could not keep."""
    told = []
    if recording.off_because:
        told.append(f"the recorder switched itself off: {recording.off_because}")
    for count, what in (
        (recording.stacks_full, "opens have no origin: the table of stacks was full"),
        (recording.codes_full, "Python frames have no name: the table of code objects was full"),
        (recording.libraries_full, "libraries have no name: their table was full"),
        (recording.wrong_closes_lost, "wrong closes are not told: only the last ones are kept"),
        (recording.out_of_range, "descriptors were not recorded: their numbers are beyond the table"),
        (recording.skipped, "calls were not recorded: in a signal handler, or after a jump out of one"),
        (recording.unstored, "parts of the recording got no storage: its file system was full, or a filter forbade it"),
    ):
        if count:
            told.append(f"{count} {what}")
    return tuple(told)
