"""The look of `inside` in another Python process: 3.14 and later let one be asked to run a script (sys.remote_exec).

The script carries the four modules that are needed as text, as leakline need not be installed there; it leaves nothing
behind in the process, and hands its answer over in a file. Both lie in the process's own /tmp (it may see other files
than we do), in a folder that belongs to its user.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

from leakline.errors import LeaklineError, NotPermittedError, UnsupportedError
from leakline.facts import PythonHolder, PythonHolders
from leakline.own_process.inside import held

TIMEOUT_S = 10.0  # a process that runs no Python code meanwhile (it waits in C) does not answer
_MODULES = ("owners", "chain", "holding", "inside")
_SCRIPT = """
def leakline_looks(sources, numbers, place):
    import json, os, sys, types
    before = {name: sys.modules.get(name) for name in sources}
    try:
        for name, source in sources.items():
            module = sys.modules[name] = types.ModuleType(name)
            exec(compile(source, name, "exec"), module.__dict__)
        answer = sys.modules["leakline.own_process.inside"].held(numbers)
    except Exception as error:
        answer = repr(error)
    finally:
        for name, module in before.items():
            if module is None:
                sys.modules.pop(name, None)
            else:
                sys.modules[name] = module
    with open(place + ".part", "w") as file:
        json.dump(answer, file)
    os.replace(place + ".part", place)
"""


def own_holders(numbers: Collection[int]) -> PythonHolders:
    """What keeps these descriptors of this very process."""
    return _holders(*held(numbers))


def check_can_ask(pid: int) -> None:
    """Raises UnsupportedError where this Python cannot ask another process anything."""
    if not hasattr(sys, "remote_exec"):
        raise UnsupportedError(
            f"objects of process {pid} can be looked at by Python 3.14 or later only; this is {sys.version.split()[0]}",
            "run leakline with the Python that runs the process; or use leakline.diagnose() or pytest --leakline in it",
        )


def holders_in(pid: int, numbers: Collection[int], timeout_s: float = TIMEOUT_S) -> PythonHolders:
    """What keeps these descriptors of another process, which runs the look at its next safe point: 10 to 100 ms of it.

    Raises UnsupportedError (this Python or that one is older than 3.14, or they differ, or it does not come to run
    Python code in time), NotPermittedError, and LeaklineError when the look itself fails.
    """
    check_can_ask(pid)
    with _place_in(pid) as (folder, theirs):
        program, place = folder / "look.py", folder / "answer.json"
        program.write_text(script(numbers, f"{theirs}/{place.name}"), encoding="utf-8")
        _ask(pid, f"{theirs}/{program.name}")
        until = time.monotonic() + timeout_s
        while not place.exists():
            if time.monotonic() > until:
                raise _NoAnswerError(
                    f"process {pid} ran no Python code for {timeout_s:g} s", "try again when it is active"
                )
            time.sleep(0.005)
        answer = _read(pid, place)
    if isinstance(answer, str):
        raise LeaklineError(f"the look at the objects of process {pid} failed: {answer}", "please report this")
    return _holders(*answer)


class _NoAnswerError(UnsupportedError):
    """It may still come to run the script."""


@contextmanager
def _place_in(pid: int) -> Iterator[tuple[Path, str]]:
    """A folder for a script and its answer: by its name here, and by its name in the process."""
    try:
        folder = Path(tempfile.mkdtemp(prefix="leakline-", dir=f"/proc/{pid}/root/tmp"))
    except OSError as error:
        if isinstance(error, PermissionError):
            raise NotPermittedError(f"process {pid} may not be asked: {error}", "run it as root: sudo …") from error
        raise UnsupportedError(
            f"process {pid} has no place for a question: {error}", "its /tmp must be writable"
        ) from error
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
        user, group = (int(found) for found in re.findall(r"^[UG]id:\t\d+\t(\d+)", status, re.MULTILINE))
        if user != os.geteuid():
            os.chown(folder, user, group)
        yield folder, f"/tmp/{folder.name}"
    except _NoAnswerError:
        with suppress(OSError):  # it would complain of a script that is gone
            (folder / "look.py").write_text("", encoding="utf-8")
        raise
    except (OSError, ValueError) as error:
        _remove(folder)
        raise UnsupportedError(f"process {pid} cannot be asked: {error}", "try again; it may have ended") from error
    except BaseException:
        _remove(folder)
        raise
    _remove(folder)


def _ask(pid: int, program: str) -> None:
    try:
        sys.remote_exec(pid, program)  # type: ignore[attr-defined,unused-ignore]
    except PermissionError as error:
        raise NotPermittedError(f"process {pid} may not be asked: {error}", "run it as root: sudo …") from error
    except (OSError, RuntimeError, ValueError) as error:
        raise UnsupportedError(
            f"process {pid} cannot be asked: {error}", "it must run the same Python, 3.14+"
        ) from error


def _read(pid: int, place: Path) -> Any:
    """The answer: JSON that the process wrote, not through a link of its own making."""
    try:
        with open(os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError) as error:
        raise LeaklineError(f"process {pid} gave no answer that can be read: {error}", "try again") from error


def script(numbers: Collection[int], place: str) -> str:
    """The program that writes to `place` what keeps these descriptors of the process that runs it."""
    folder = Path(__file__).parent
    sources = {f"{__package__}.{name}": (folder / f"{name}.py").read_text(encoding="utf-8") for name in _MODULES}
    call = f"leakline_looks({sources!r}, {sorted(numbers)!r}, {place!r})\ndel leakline_looks\n"
    return f"{_SCRIPT}\n{call}"


def _holders(told: list[dict[str, object]], incomplete: list[str]) -> PythonHolders:
    known = [msgspec.convert(each, PythonHolder) for each in told if each["state"] != "unknown"]
    return PythonHolders(at=time.monotonic(), holders=tuple(known), incomplete=tuple(incomplete))


def _remove(folder: Path) -> None:
    with suppress(OSError):
        for each in folder.iterdir():
            each.unlink()
        folder.rmdir()
