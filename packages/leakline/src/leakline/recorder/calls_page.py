"""docs/recorder-calls.md, made from target/intercepted.h: `make docs-calls`."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import msgspec

LIST = Path(__file__).parent / "target" / "intercepted.h"

_WITHIN_COMMENT = r"(?:(?!\*/)[\s\S])"
_GROUP = re.compile(
    rf"/\* (?P<about>{_WITHIN_COMMENT}+?)\n \* X\({_WITHIN_COMMENT}*\*/\n"
    r"#define LEAKLINE_(?P<name>\w+)\(X\)(?P<rows>(?:.*\\\n)+.*\n)"
)
_ROW = re.compile(r'\bX\((?P<name>\w+)(?:, "(?P<effect>[^"]*)"\))?')

_HEAD = """\
# Calls that the recorder covers

`leakline run` and `leakline attach` know the origin of every descriptor that is made, copied, received or closed by one
of these functions of libc. This page is made from the list that the recorder is built from: `make docs-calls`. A
program calls each of them from a known line, and the tests compare.
"""

_TAIL = """
## Not covered

What does not go through these functions is found by comparing with `/proc`, and shown as "origin unknown (opened
outside libc)": `io_uring`, Go, code that makes system calls itself, static programs, libraries loaded by `dlmopen` or
with `RTLD_DEEPBIND`. So is what libc keeps open for itself: the socket of `syslog()`, files of `setpwent()` and of
`sethostent()`, folders of `fts_open()`; and the pidfd of `pidfd_spawn()`.

`fdopen()` and `fdopendir()` need no record: the stream takes over a descriptor that has its origin, and `fclose()` or
`closedir()` closes it. `getaddrinfo()`, `glob()`, `ftw()` and `sem_open()` close what they open.

With `--follow-children`, what `wordexp()` starts is not recorded: libc starts it without any of the functions above.
"""


class Group(msgspec.Struct, frozen=True):
    """Functions that one wrapper serves: `about` is what they do; each with its own `effect` where that differs."""

    name: str
    about: str
    functions: tuple[tuple[str, str], ...]


def groups(text: str) -> list[Group]:
    """The groups of the list, in its order."""
    found = []
    for match in _GROUP.finditer(text):
        about = " ".join(line.strip(" *") for line in match["about"].splitlines())
        rows = tuple((row["name"], row["effect"] or "") for row in _ROW.finditer(match["rows"]))
        found.append(Group(match["name"], about, rows))
    return found


def render() -> str:
    """The page as Markdown text. Raises OSError where the list was not installed."""
    parts = [_HEAD]
    for group in groups(LIST.read_text(encoding="utf-8")):
        parts.append(f"\n## {group.name.replace('_', ' ').capitalize()}\n\n{group.about}\n\n")
        if any(effect for _, effect in group.functions):
            parts.append("| function | effect |\n|---|---|\n")
            parts.extend(f"| `{name}` | {effect} |\n" for name, effect in group.functions)
        else:
            parts.append(", ".join(f"`{name}`" for name, _ in group.functions) + "\n")
    parts.append(_TAIL)
    return "".join(parts)


if __name__ == "__main__":
    sys.stdout.write(render())
