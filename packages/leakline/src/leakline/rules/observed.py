"""The facts that every rule is given: what was seen of one process during one observation."""

from __future__ import annotations

import msgspec

from leakline.facts import Closely, Frame, PythonHolders, Recorded, Snapshot
from leakline.growth import Growth
from leakline.rules.standstill import Standstill


class Observed(msgspec.Struct, frozen=True):
    """`begin` and `end` are None where nobody has looked at the whole process."""

    pid: int
    growth: Growth
    counts: dict[str, int]
    begin: Snapshot | None = None
    end: Snapshot | None = None
    threads: tuple[Standstill, ...] = ()
    ended: bool = False
    recorded: Recorded | None = None  # where a recorder is loaded into the process
    closely: Closely = Closely()
    stacks: dict[int, tuple[Frame, ...]] = {}  # Python frames of threads that stand still, innermost first, by tid
    unread: dict[int, float] = {}  # eventfds that were signalled and that nobody read, with the seconds that it lasted
    python: PythonHolders | None = None  # where the objects of the process could be looked at

    @property
    def seconds(self) -> float:
        return self.growth.seconds

    @property
    def uses_libzmq(self) -> bool:
        # The name of the mapped file: libzmq.so.5, or pyzmq's bundled libzmq-0123abcd.so.5.2.5. pyzmq wheels that link
        # it statically have no such file, but always the threads.
        mapped = any("libzmq" in name for snapshot in (self.begin, self.end) if snapshot for name in snapshot.libraries)
        return mapped or bool(self.threads)
