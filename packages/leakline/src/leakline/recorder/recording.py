"""What a recording says: which descriptors are alive, which stack opened each, what was closed wrongly.

Addresses and numbers only; `origins` makes names of them. All times are seconds of the monotonic clock.
`recording_file` reads one.
"""

from __future__ import annotations

from typing import Literal

import msgspec

How = Literal["opened", "accepted", "duplicated", "received", "older", "inherited"]
WrongCloseKind = Literal["nothing-open", "other-owner", "library-owner"]

# Flags of a stack: why it is not whole (target/origin.h).
NATIVE_CUT, PYTHON_CUT, NATIVE_BROKEN, PYTHON_BROKEN = 1, 2, 4, 8


class Library(msgspec.Struct, frozen=True):
    """A file that was mapped as code from `start` to `end`. `bias`: an address less this one is an address in the file.
    `build_id` is empty if it has none.
    """

    number: int
    path: str
    start: int
    end: int
    bias: int
    build_id: bytes = b""
    loaded_at_generation: int = 0
    unloaded: bool = False


class Code(msgspec.Struct, frozen=True):
    """A Python code object by its content. `name` is co_qualname where the version has it, else co_name; `lines` is
    co_lnotab or co_linetable of `python_version` (0x030b07f0 is 3.11.7), as it is.
    """

    number: int
    file: str
    name: str
    first_line: int
    python_version: int
    lines: bytes = b""


class PythonFrame(msgspec.Struct, frozen=True):
    """`code` is the number of a Code (0: could not be read), `instruction` an offset into its byte code, in bytes (-1:
    not known). `entry`: the outermost Python frame of one run of the interpreter's loop; its caller is a native frame.
    """

    code: int
    instruction: int
    entry: bool


class Stack(msgspec.Struct, frozen=True):
    """A distinct stack, innermost frame first in both lists, and how many descriptors it `opened`, of which were
    `closed` and are `alive`. `native` are return addresses; `libraries` the library number of each (0: unknown).
    """

    number: int
    native: tuple[int, ...] = ()
    libraries: tuple[int, ...] = ()
    python: tuple[PythonFrame, ...] = ()
    flags: int = 0
    opened: int = 0
    closed: int = 0
    alive: int = 0
    first_at_s: float = 0.0
    last_at_s: float = 0.0


class Slot(msgspec.Struct, frozen=True):
    """One open descriptor. `function` is the intercepted function's name; `stack` is 0 if unknown; `related` is the
    descriptor that it is a copy of. The errors are those of its last failed bind and connect (0: none). `inode` is the
    kernel object's at the time, where it was cheaply known.
    """

    number: int
    how: How
    function: str
    stack: int
    related: int | None
    tid: int
    opened_at_s: float
    generation: int
    bind_error: int = 0
    connect_error: int = 0
    inode: int | None = None


class WrongClose(msgspec.Struct, frozen=True):
    """A close that failed, or closed somebody else's descriptor; with the earlier close and the open of that number,
    where they are known (stack 0: not known).
    """

    number: int
    error: int
    function: str
    stack: int
    tid: int
    at_s: float
    earlier_close_stack: int
    earlier_close_tid: int
    earlier_close_at_s: float
    open_stack: int
    open_tid: int
    opened_at_s: float
    kind: WrongCloseKind


class Exhausted(msgspec.Struct, frozen=True):
    """How often EMFILE or ENFILE came, and the first time's errno, moment and stack."""

    count: int = 0
    error: int = 0
    at_s: float = 0.0
    stack: int = 0


class Recording(msgspec.Struct, frozen=True):
    """One recording at one moment. `off_because` is "" while the recorder works.

    `eval_ranges` are the addresses, as [start, end), of the interpreter's evaluation functions.
    """

    path: str
    pid: int  # in the target's own pid namespace
    parent_pid: int
    start_time_ticks: int
    pid_namespace: int
    mode: Literal["launched", "attached"]
    began_at_s: float
    ended_at_s: float | None
    live: bool
    off_because: str = ""
    command: str = ""
    slots: tuple[Slot, ...] = ()
    closed_at_s: dict[int, float] = {}  # of numbers that are not open, the last time that they were closed
    stacks: dict[int, Stack] = {}
    codes: dict[int, Code] = {}
    libraries: dict[int, Library] = {}
    wrong_closes: tuple[WrongClose, ...] = ()
    exhausted: Exhausted = Exhausted()
    opened: int = 0
    closed: int = 0
    stacks_full: int = 0
    codes_full: int = 0
    libraries_full: int = 0
    wrong_closes_lost: int = 0
    out_of_range: int = 0
    python_version: int = 0
    eval_ranges: tuple[tuple[int, int], ...] = ()
    unstored: int = 0  # chunks that a full file system refused
    skipped: int = 0  # calls of signal handlers inside the recorder
    torn: int = 0  # records that were being written all the time: the writer was killed in the middle; left out
