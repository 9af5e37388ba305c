"""Runs a script of ours in another Python process: 3.14 and later let one be asked (sys.remote_exec).

It runs in the main thread between two of its instructions, so it is reached only while that thread runs Python code.
The script and its answer lie in the process's own /tmp (it may see other files than we do), in a folder that belongs to
its user and is gone afterwards.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import stat
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from leakline.errors import LeaklineError, NotPermittedError, UnsupportedError
from leakline.proc.folders import open_folder

SCRIPT, ANSWER = "script.py", "answer.json"
MOST_ANSWERED = 64 << 20  # bytes
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

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
    place = _Place.make(pid)
    try:
        place.write(complete(script, f"{place.path}/{ANSWER}"))
        place.give_to_its_user()
        _ask(pid, f"{place.path}/{SCRIPT}")
        answer = place.wait(timeout_s)
    except NoAnswerError:
        place.leave()
        raise
    except BaseException as error:
        place.remove()
        if isinstance(error, OSError | ValueError):
            raise UnsupportedError(f"process {pid} cannot be asked: {error}", "try again; it may have ended") from error
        raise
    place.remove()
    return answer


class _Place:
    """A folder for a script and its answer in the process's /tmp. It will be the process's user's, who may be no friend
    of ours: everything in it is reached through descriptors, and no link is followed.
    """

    def __init__(self, pid: int, parent: int, name: str) -> None:
        self._pid, self._parent, self._name = pid, parent, name
        self.path = f"/tmp/{name}"  # in the process
        self._folder = self._script = -1

    @classmethod
    def make(cls, pid: int) -> _Place:
        """Raises NotPermittedError, UnsupportedError."""
        try:
            place = cls(pid, open_folder(pid, "/tmp"), f"leakline-{secrets.token_hex(8)}")
            try:
                os.mkdir(place._name, 0o700, dir_fd=place._parent)
                place._folder = os.open(place._name, _FOLDER, dir_fd=place._parent)
                if os.fstat(place._folder).st_uid != os.geteuid():
                    raise UnsupportedError(f"{place.path} was replaced by another user", "its /tmp must be sticky")
            except BaseException:
                place.remove()
                raise
        except PermissionError as error:
            raise NotPermittedError(f"process {pid} may not be asked: {error}", "run it as root: sudo …") from error
        except OSError as error:
            hint = "its /tmp must be a folder that can be written"
            raise UnsupportedError(f"process {pid} has no place for a question: {error}", hint) from error
        return place

    def write(self, text: str) -> None:
        """The script. Raises OSError."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._script = os.open(SCRIPT, flags, 0o644, dir_fd=self._folder)
        os.fchmod(self._script, 0o644)  # whatever our umask: the process may be another user's
        self._fill(text)

    def _fill(self, text: str) -> None:
        os.ftruncate(self._script, 0)
        os.lseek(self._script, 0, os.SEEK_SET)
        data = text.encode()
        while data:
            data = data[os.write(self._script, data) :]

    def give_to_its_user(self) -> None:
        """From now on the process's user may do anything in the folder. Raises OSError, ValueError."""
        status = Path(f"/proc/{self._pid}/status").read_text(encoding="utf-8", errors="replace")
        user, group = (int(found) for found in re.findall(r"^[UG]id:\t\d+\t(\d+)", status, re.MULTILINE))
        if user != os.geteuid():
            os.fchown(self._folder, user, group)

    def wait(self, timeout_s: float) -> Any:
        """The answer. Raises NoAnswerError, LeaklineError."""
        until = time.monotonic() + timeout_s
        while True:
            try:
                number = os.open(
                    ANSWER, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self._folder
                )
            except FileNotFoundError:
                if time.monotonic() > until:
                    raise NoAnswerError(
                        f"process {self._pid} ran no Python code for {timeout_s:g} s", "try again when it is active"
                    ) from None
                time.sleep(0.005)
                continue
            except OSError as error:
                raise self._unreadable(error) from error
            with open(number, "rb") as file:
                return self._read(file)

    def _read(self, file: BinaryIO) -> Any:
        try:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_size > MOST_ANSWERED:
                raise ValueError("it is no file, or too large")
            return json.loads(file.read(MOST_ANSWERED))
        except (OSError, ValueError) as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> LeaklineError:
        return LeaklineError(f"process {self._pid} gave no answer that can be read: {error}", "try again")

    def leave(self) -> None:
        """To a process that may still come to it: it would complain of a script that is gone."""
        with suppress(OSError):
            self._fill(_CLEAN.format(folder=self.path))
        self._close()

    def remove(self) -> None:
        """The folder, with what belongs there. What its user put there besides stays, with the folder."""
        if self._folder >= 0:
            for name in (SCRIPT, ANSWER, f"{ANSWER}.part"):
                with suppress(OSError):
                    os.unlink(name, dir_fd=self._folder)
        with suppress(OSError):
            os.rmdir(self._name, dir_fd=self._parent)
        self._close()

    def _close(self) -> None:
        for number in (self._script, self._folder, self._parent):
            if number >= 0:
                os.close(number)


def _ask(pid: int, program: str) -> None:
    try:
        sys.remote_exec(pid, program)  # type: ignore[attr-defined,unused-ignore]
    except PermissionError as error:
        raise NotPermittedError(f"process {pid} may not be asked: {error}", "run it as root: sudo …") from error
    except (OSError, RuntimeError, ValueError) as error:
        raise UnsupportedError(
            f"process {pid} cannot be asked: {error}", "it must run the same Python, 3.14+"
        ) from error
