"""`expected.toml` of a case: which programs there are, how to look at them, and what leakline must say.

(msgspec reads TOML by tomllib, and on Python 3.10 by tomli, which pytest brings there.)
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

CASEBOOK = Path(__file__).parents[1]
REPOSITORY = CASEBOOK.parent
MARK = "casebook: "  # a comment in a program that names the line which must be found

#: launched under `leakline run` and looked at; looked at only; attached to; launched, and reported when it has ended
How = Literal["launched", "observed", "attached", "ended"]


class Look(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One way to look at one program, and at the same program put right.

    `finding`: its id; empty: nothing may be found. `kind`: of the descriptors that pile up. `function` and `at` (a mark
    in `file`, the program if empty) are where they are opened (or, for a wrong close, closed); both empty where nothing
    is recorded. `seconds`: for how long leakline looks, or within which the program ends. `ready`: the line on stdout
    that tells that it has begun; a number after the word is the process to look at. `says`, `fixed_says`: what the
    programs themselves print on the way, as was seen first. `beside`: programs of the folder to start before; the words
    that each says after "ready" are arguments of the program, after `arguments`.
    """

    program: str
    fixed: str
    how: How
    seconds: float
    finding: str = ""
    kind: str = ""
    function: str = ""
    at: str = ""
    file: str = ""
    says: str = ""
    fixed_says: str = ""
    ready: str = r"^ready(?: (\d+))?"
    arguments: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()  # that a C or C++ program is linked with
    python: str = ""  # another interpreter than ours
    libzmq: str = ""  # a program in C++ runs with this release instead of Debian's
    environment: dict[str, str] = {}


class Case(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One folder of the casebook. `seen` is the symptom in a few words, `name` the folder's."""

    seen: str
    look: tuple[Look, ...]
    name: str = ""

    @property
    def folder(self) -> Path:
        return CASEBOOK / self.name


class Place(msgspec.Struct, frozen=True):
    """Where leakline must say that it happens."""

    function: str
    file: str
    line: int


def cases(*names: str) -> list[Case]:
    """All cases, or those whose folder's name begins with one of `names`. Raises ValueError, with what is wrong."""
    found = [read_case(file.parent) for file in sorted(CASEBOOK.glob("*/expected.toml"))]
    unknown = [name for name in names if not any(case.name.startswith(name) for case in found)]
    if unknown:
        there = ", ".join(case.name for case in found)
        raise ValueError(f"no case begins with {', '.join(unknown)}; there are {there}")
    return [case for case in found if not names or case.name.startswith(names)]


def read_case(folder: Path) -> Case:
    """The case of one folder. Raises ValueError, with what is wrong."""
    file = folder / "expected.toml"
    try:
        case = msgspec.toml.decode(file.read_bytes(), type=Case)
    except (msgspec.DecodeError, OSError) as error:
        raise ValueError(f"{folder.name}/{file.name}: {error}") from error
    return msgspec.structs.replace(case, name=folder.name)


def place_of(case: Case, look: Look) -> Place | None:
    """Where the finding must point; None where it points nowhere. Raises ValueError if the mark is not there once."""
    if not look.at:
        return None
    file = case.folder / (look.file or look.program)
    text = file.read_text(encoding="utf-8").splitlines()
    lines = [number for number, line in enumerate(text, 1) if line.rstrip(" */").endswith(f"{MARK}{look.at}")]
    if len(lines) != 1:
        raise ValueError(f"{case.name}/{file.name} has {len(lines)} lines with the comment `{MARK}{look.at}`, not one")
    return Place(look.function, file.name, lines[0])
