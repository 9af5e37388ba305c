"""From what a user types (a number or a name) to the one process that is meant."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator

from leakline.errors import AmbiguousNameError, NoSuchProcessError, UsageError
from leakline.figures import printable
from leakline.proc.process import Stat, read_stat

_INTERPRETERS = ("python", "pypy", "node", "ruby", "perl", "bash", "dash", "sh", "php", "lua", "java")
_SHOWN, _CUT = 10, 100  # candidates, and characters of each command line


def find(target: str) -> int:
    """The pid of `target`: "1234", or a name: the exact short one, else the program's, else a script's.

    Never this process itself. Raises NoSuchProcessError, UsageError, or AmbiguousNameError with the
    candidates.
    """
    if target.isascii() and target.isdigit():
        return _thread_group(int(target))
    if not target.strip():
        raise UsageError("an empty name names no process", "give a process by number or name: leakline 1234")
    tiers: tuple[list[tuple[int, str]], ...] = ([], [], [])
    names: set[str] = set()
    for pid, stat in _others():
        words = _words(pid)
        program, script = _program(words), _script(words)
        names.update(name for name in (stat.name, program, *script) if name)
        for tier, matches in zip(tiers, (stat.name == target, program == target, target in script), strict=True):
            if matches:
                tier.append((pid, " ".join(words) or f"[{stat.name}]"))
    found = next((tier for tier in tiers if tier), [])
    if len(found) == 1:
        return found[0][0]
    if found:
        raise _ambiguous(target, found)
    raise NoSuchProcessError(f"no process is named {target!r}", _suggestion(target, names))


def _thread_group(number: int) -> int:
    # /proc/TID exists for every thread although it is not listed; what is meant is the process.
    read_stat(number)
    try:
        with open(f"/proc/{number}/status") as file:
            for line in file:
                if line.startswith("Tgid:"):
                    return int(line.split()[1])
    except OSError as error:
        raise NoSuchProcessError(f"process {number} ended while it was being read") from error
    return number


def _others() -> Iterator[tuple[int, Stat]]:
    """Living processes other than this one, lowest pid first; zombies have nothing that could be looked at."""
    for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):
        try:
            stat = read_stat(pid)
        except NoSuchProcessError:
            continue
        if pid != os.getpid() and not stat.ended:
            yield pid, stat


def _words(pid: int) -> list[str]:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read().rstrip(b"\0").split(b"\0")
    except OSError:
        return []
    return [word.decode(errors="backslashreplace") for word in words] if words != [b""] else []


def _program(words: list[str]) -> str:
    # Daemons rewrite argv[0] as a title ("nginx: worker process"); login shells begin with "-".
    return os.path.basename(words[0].split(": ")[0]).lstrip("-").removesuffix(":") if words else ""


def _script(words: list[str]) -> set[str]:
    """Names of the script or module that an interpreter runs: `server.py` is also known as `server`."""
    if not _program(words).startswith(_INTERPRETERS):
        return set()
    for previous, word in itertools.pairwise(words):
        if previous == "-m":
            return {word, word.rpartition(".")[2]}
        if previous == "-c":
            return set()
        if not word.startswith("-"):
            name = os.path.basename(word)
            return {name, os.path.splitext(name)[0]}
    return set()


def _ambiguous(target: str, found: list[tuple[int, str]]) -> AmbiguousNameError:
    lines = [f"  {pid:>7}  {_printable(command)[:_CUT]}" for pid, command in found[:_SHOWN]]
    if len(found) > _SHOWN:
        lines.append(f"  … and {len(found) - _SHOWN} more")
    return AmbiguousNameError(
        f"{len(found)} processes are named {target!r}:\n" + "\n".join(lines),
        f"give the number of one, for example: leakline {found[0][0]}",
        tuple(found),
    )


def _printable(command: str) -> str:
    # A command line may hold a whole script, newlines and terminal controls included.
    return printable(" ".join(command.split()))


def _suggestion(target: str, names: set[str]) -> str:
    import difflib

    close = difflib.get_close_matches(target, names, n=3)
    if close:
        return "close names: " + ", ".join(sorted(close))
    return "list processes with `ps -e`"
