"""The Python interface: a snapshot, a diagnosis, and a guard that raises on a leak. docs/api.md has examples.

All of it works on other processes and on one's own, and may be called from any thread.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from leakline import proc
from leakline.errors import LeaklineError, UsageError
from leakline.facts import Snapshot
from leakline.observe import Observation, Report, looks, positive
from leakline.own_process.leaks import Describer, Leak
from leakline.own_process.left_open import GRACE_S, left_open
from leakline.own_process.looks import look
from leakline.own_process.recorder import OwnRecorder, let_go, own_recorder
from leakline.own_process.room import room


class DescriptorLeakError(LeaklineError):
    """A block left descriptors open. `leaks` has each one: number, kind, peer and the frames that opened it."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "", leaks: tuple[Leak, ...] = ()) -> None:
        super().__init__(message, hint)
        self.args = (message, hint, leaks)
        self.leaks = leaks


def snapshot(pid: int | None = None) -> Snapshot:
    """All descriptors of a process (None: this one) at this moment, classified, with limits, threads and libraries.

    Takes about 10 us for each descriptor. Raises NoSuchProcessError, also if it ends meanwhile, NotPermittedError,
    ZombieError, KernelThreadError. What could not be read is said in `Snapshot.unreadable`.
    """
    return proc.snapshot(os.getpid() if pid is None else pid)


def diagnose(
    pid: int | None = None, seconds: float = 10.0, *, limit: int | None = None, objects: bool | None = None
) -> Report:
    """Watch a process (None: this one, from the calling thread while others run) and say whether it leaks, and why.

    Blocks for so many seconds, at least 3 for a verdict about growth; ends early when the process does. `limit` is an
    application's own ceiling of descriptors, if that is below the kernel's. The verdict is `Report.verdict`: leak,
    steady, near-limit or unknown (too little seen); `Report.findings` has the reasons. Only reads: the process does not
    notice. Where it is recorded (`leakline run`), findings name lines.

    `objects`: also say which Python objects keep what was opened meanwhile and is still open (findings `python.…`).
    None: of this very process only. Another one must run Python 3.14 or later, and the same one as this; it then runs
    a script of leakline's for 10 to 100 ms.

    Raises UsageError for values without meaning, with `objects` UnsupportedError, else as `snapshot`.
    """
    own = pid is None or pid == os.getpid()
    if objects and pid is not None and not own:
        from leakline.own_process.remote import check_can_ask  # ways into another process: imported where one is gone

        check_can_ask(pid)
    observation = Observation(os.getpid() if pid is None else pid, limit=limit, window=positive(seconds) + 1.0)
    for _ in looks(observation, seconds):
        pass
    observation.refresh()
    numbers = observation.opened()
    if numbers and not observation.ended and (own if objects is None else objects):
        from leakline.own_process.remote import holders_in, own_holders

        observation.tell_python(own_holders(numbers) if own else holders_in(observation.pid, numbers))
    return observation.report(refresh=False)


@contextmanager
def no_leak(*, grace_s: float = GRACE_S, record: bool = True) -> Iterator[None]:
    """A block, or a decorated function, that must close what it opens: raises DescriptorLeakError where it does not.

    What only waits for the garbage collector is collected, and what is closed by another thread within `grace_s`
    seconds counts as closed; a block that leaves nothing open waits for nothing. What other threads open meanwhile, and
    keep, counts, too. An exception of the block is passed on, and nothing is checked.

    `record`: note which line opens what, in this process, for as long as the block runs (some milliseconds to begin,
    then 1-2 us for each open; see docs/attach.md); where that is not possible the error names no lines, and says why.
    In a child of fork() that leaves the block, nothing is checked.
    """
    if grace_s < 0:
        raise UsageError(f"cannot wait for {grace_s:g} s", "give 0 or more seconds")
    recorder, unrecorded = _recorder() if record else (None, "not recorded (record=False)")
    pid = os.getpid()
    try:
        before = look(recorder)
        yield
        if os.getpid() != pid:
            return
        with room():
            numbers = left_open(before, recorder, grace_s)
            leaks = Describer(recorder).leaks(numbers) if numbers else ()
            if leaks:
                raise _leaked(leaks, unrecorded)
    finally:
        if recorder is not None:
            let_go(recorder)


def _recorder() -> tuple[OwnRecorder | None, str]:
    with suppress(OSError):
        try:
            return own_recorder(), ""
        except LeaklineError as error:
            return None, error.message
    return None, "the recording could not be read"


def _leaked(leaks: tuple[Leak, ...], unrecorded: str) -> DescriptorLeakError:
    # Reports take rich text and styles: only for who needs them.
    try:
        from leakline.reports.left_open import lines_of
        from leakline.reports.style import Style

        told = "\n".join(f"  {line}" for line in lines_of(leaks, Style(width=98), unrecorded))
    except OSError:  # no descriptor left to import it with, and the hard limit allows no more
        told = "\n".join(f"  {leak.number}: {leak.kind} {leak.peer}" for leak in leaks)
    many = "1 descriptor was" if len(leaks) == 1 else f"{len(leaks)} descriptors were"
    return DescriptorLeakError(
        f"{many} left open:\n{told}", "close each on every path: `with`, try/finally, or an owner object", leaks
    )
