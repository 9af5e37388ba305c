"""`pipe.dead-peer`, `pidfd.dead-child`, `file.deleted`: descriptors of things that are gone. Pure."""

from __future__ import annotations

from leakline.facts import Descriptor, Finding
from leakline.rules.grouping import SHOWN, lasting, top
from leakline.rules.observed import Observed
from leakline.rules.sorts import DEAD_PIDFD, DEAD_PIPE, DELETED, forecast, growing_by, more, rate_of, sort_in

MIN_SECONDS = 3.0
MIN_DEAD = 10
MUCH = 1 << 30  # bytes on disk that deleted files keep: worth a warning however few they are
WORTH_A_NOTE = 64 << 20


def dead_pipes(observed: Observed) -> list[Finding]:
    """Pipes whose other end nobody holds: mostly of children that have ended."""
    kept = _lasting(observed, DEAD_PIPE)
    if len(kept) < MIN_DEAD:
        return []
    growth = growing_by(observed, DEAD_PIPE)
    return [
        Finding(
            id=DEAD_PIPE,
            severity="leak" if growth else "warning",
            title=f"{len(kept)} pipes lead to nobody: their other ends are closed{more(growth)}",
            count=len(kept),
            per_second=rate_of(growth),
            evidence={"seconds": round(observed.seconds, 1), **forecast(observed, growth)},
            cause="The children at the other end have ended, or closed it, and this process keeps its own end: the"
            " streams of a child are not closed by waiting for it.",
            remedy="Read to the end and close: `subprocess.run(…)`, or `with subprocess.Popen(…, stdout=PIPE) as"
            " child:`; in C, close() or pclose() after waitpid().",
            harmless="The process is about to read what the children have left.",
            next=f"leakline ls {observed.pid} --kind pipe",
            threshold=f"{MIN_DEAD} of them, the same ones for {MIN_SECONDS:.0f} s",
            confidence="certain" if observed.closely.every_pipe_searched else "likely",
            ruled_out={"held by another process": "all were searched"} if observed.closely.every_pipe_searched else {},
        )
    ]


def dead_pidfds(observed: Observed) -> list[Finding]:
    """Handles of processes that have ended."""
    kept = _lasting(observed, DEAD_PIDFD)
    if len(kept) < MIN_DEAD:
        return []
    growth = growing_by(observed, DEAD_PIDFD)
    return [
        Finding(
            id=DEAD_PIDFD,
            severity="leak" if growth else "warning",
            title=f"{len(kept)} pidfds are of processes that have ended{more(growth)}",
            count=len(kept),
            per_second=rate_of(growth),
            evidence={"seconds": round(observed.seconds, 1), **forecast(observed, growth)},
            cause="A handle is opened for each child and not closed after the child was waited for.",
            remedy="close(pidfd) after waitid(P_PIDFD, …), on every path. (asyncio's PidfdChildWatcher does.)",
            harmless="The process is still busy with children that ended at once.",
            next=f"leakline ls {observed.pid} --kind pidfd",
            threshold=f"{MIN_DEAD} of them, the same ones for {MIN_SECONDS:.0f} s",
            confidence="certain",
        )
    ]


def deleted_files(observed: Observed) -> list[Finding]:
    """Files without a name: their disk space is free only when they are closed."""
    kept, size = _lasting(observed, DELETED), observed.closely.deleted_bytes
    growth = growing_by(observed, DELETED)
    if not kept or not (growth or size >= WORTH_A_NOTE):
        return []
    return [
        Finding(
            id=DELETED,
            severity="leak" if growth else "warning" if size >= MUCH else "note",
            title=f"{len(kept)} deleted files are open, and keep {_bytes(size)} on disk{more(growth)}",
            count=len(kept),
            per_second=rate_of(growth),
            evidence={
                "files": _names(kept),
                "bytes": size,
                **forecast(observed, growth),
            },
            cause="A file that is deleted or replaced while it is open keeps its descriptor and its disk space: most"
            " often a log that was rotated, and that the process writes on without opening the new one, or never"
            " closes when it does. `df` counts it, `du` does not.",
            remedy="Open log files anew on the signal of the rotation and close the old one (Python:"
            " WatchedFileHandler; logrotate: copytruncate or postrotate); `with open(…)` for temporary files.",
            harmless="Temporary files that were unlinked on purpose (databases do this); they end with the process.",
            next=f"leakline ls {observed.pid} --kind file",
            threshold=f"files grow by them; or {_bytes(WORTH_A_NOTE)} on disk, a warning from {_bytes(MUCH)}",
            confidence="certain",
        )
    ]


def _names(files: list[Descriptor]) -> dict[str, int]:
    """By name; by folder where each has a name of its own."""
    names = [each.target.removesuffix(" (deleted)") for each in files]
    many = len(set(names)) > SHOWN
    return top((f"{name.rpartition('/')[0]}/…" for name in names) if many else names)


def _lasting(observed: Observed, sort: str) -> list[Descriptor]:
    begin, end = observed.begin, observed.end
    if begin is None or end is None or end.at - begin.at < MIN_SECONDS:
        return []
    growing = growing_by(observed, sort)
    # What was opened meanwhile has not lasted yet; but where it is what the kind grows by, it is what this is about.
    among = end.descriptors if growing else lasting(begin, end)
    return [each for each in among if sort_in(observed, each) == sort]


def _bytes(count: int) -> str:
    for unit, factor in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}" if count < 10 * factor else f"{count // factor} {unit}"
    return f"{count} bytes"
