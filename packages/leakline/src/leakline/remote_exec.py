"""Runs a script of ours in another Python process: 3.14 and later let one be asked (sys.remote_exec).

It runs in the main thread between two of its instructions, so it is reached only while that thread runs Python code.
The script and its answer lie in the process's own /tmp (it may see other files than we do), in a folder that belongs to
its user and is gone afterwards.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from leakline.errors import LeaklineError, NotPermittedError, UnsupportedError

_ANSWER = """
def leakline_leaves(place):
    import json, os
    answer = leakline_answer()
    with open(place + ".part", "w") as file:
        json.dump(answer, file)
    os.replace(place + ".part", place)
"""
_CLEAN = "import os\nos.unlink({folder!r} + '/script.py')\nos.rmdir({folder!r})\ndel os\n"


class NoAnswerError(UnsupportedError):
    """It ran no Python code in time. If it still comes to run the script, that only takes itself away by then."""


def possible() -> bool:
    """Whether this Python can ask another process anything."""
    return hasattr(sys, "remote_exec")


def complete(script: str, place: str) -> str:
    """A script that leaves in the file `place` what its function `leakline_answer` returns, as JSON."""
    return f"{script}\n{_ANSWER}\nleakline_leaves({place!r})\ndel leakline_answer, leakline_leaves\n"


def run_in(pid: int, script: str, timeout_s: float) -> Any:
    """What `leakline_answer()` returned in that process: a function without arguments that the script defines.

    Raises NoAnswerError, UnsupportedError (that process is no Python of this one's version, or has no place for the
    script), NotPermittedError, LeaklineError (an answer that cannot be read). Safe in any thread.
    """
    with _place_in(pid) as (folder, theirs):
        program, place = folder / "script.py", folder / "answer.json"
        program.write_text(complete(script, f"{theirs}/{place.name}"), encoding="utf-8")
        _ask(pid, f"{theirs}/{program.name}")
        until = time.monotonic() + timeout_s
        while not place.exists():
            if time.monotonic() > until:
                raise NoAnswerError(
                    f"process {pid} ran no Python code for {timeout_s:g} s", "try again when it is active"
                )
            time.sleep(0.005)
        return _read(pid, place)


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
    except NoAnswerError:
        with suppress(OSError):  # it would complain of a script that is gone
            (folder / "script.py").write_text(_CLEAN.format(folder=f"/tmp/{folder.name}"), encoding="utf-8")
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


def _remove(folder: Path) -> None:
    with suppress(OSError):
        for each in folder.iterdir():
            each.unlink()
        folder.rmdir()
