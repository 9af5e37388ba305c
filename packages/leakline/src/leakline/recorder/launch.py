"""Starts a command with the recorder loaded into it, and otherwise as the shell would: same streams, same terminal,
same environment but for what the recorder takes out again before the program can see it.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import msgspec

from leakline.errors import LeaklineError, UsageError
from leakline.recorder.errors import LibraryMissingError
from leakline.recorder.recording_place import named_pattern, recording_path, recording_pattern, recordings_folder
from leakline.recorder.target_library import LIBRARY

KEPT_S = 7 * 86400.0  # recordings of ended processes

#: signals that Python ignores, and that a command must find as the shell left them
_IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)


class CommandError(LeaklineError):
    """The command could not be started. `exit_code` is the shell's: 127 not found, 126 not executable."""

    def __init__(self, message: str, hint: str = "", exit_code: int = 127) -> None:
        super().__init__(message, hint)
        self.exit_code = exit_code


class Launched(msgspec.Struct, frozen=True):
    """A command that runs: its pid, and where it writes its recording."""

    pid: int
    recording: Path


def launch(command: Sequence[str], *, recording: Path | None = None, follow_children: bool = False) -> Launched:
    """Start `command` (a program of PATH and its arguments). The caller waits for the pid.

    Raises UsageError (no command), CommandError (it cannot be executed) and LibraryMissingError. Not thread-safe: it
    forks; call it from a program of one thread.
    """
    if not command or not command[0]:
        raise UsageError("no command was given", "write it after two dashes: leakline run -- ./server --port 80")
    if not LIBRARY.is_file():
        raise LibraryMissingError(
            f"the recorder is missing: {LIBRARY}",
            "install the wheel of leakline for this platform, or run `make native`",
        )
    folder = recordings_folder()
    pattern = recording_pattern(folder) if recording is None else named_pattern(recording)
    told, tell = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        _become(command, pattern, follow_children, told, tell)
    os.close(tell)
    with open(told, "rb") as pipe:
        trouble = pipe.read()
    if trouble:
        os.waitpid(pid, 0)
        raise _trouble(command[0], int(trouble))
    return Launched(pid, recording or recording_path(folder, pid))


def _become(command: Sequence[str], pattern: str, follow: bool, told: int, tell: int) -> NoReturn:
    """In the child: turns into the command, or tells the errno through the pipe. Never returns."""
    try:
        os.close(told)
        for number in _IGNORED_BY_PYTHON:
            signal.signal(number, signal.SIG_DFL)
        _execute(command, environment(os.environ, os.getpid(), pattern, follow))
    except OSError as error:
        os.write(tell, str(error.errno).encode())
    finally:
        os._exit(127)


def _execute(command: Sequence[str], variables: Mapping[str, str]) -> None:
    """As a shell does, a script without a line that names its interpreter is given to /bin/sh."""
    try:
        os.execvpe(command[0], list(command), variables)
    except OSError as error:
        script = shutil.which(command[0])
        if error.errno != errno.ENOEXEC or script is None or _is_binary(script):
            raise
        os.execve("/bin/sh", ["sh", script, *command[1:]], variables)


def _is_binary(path: str) -> bool:
    """A program of another machine, or a damaged one, is not for the shell."""
    with open(path, "rb") as file:
        return b"\0" in file.read(512)


def environment(current: Mapping[str, str], pid: int, pattern: str, follow: bool) -> dict[str, str]:
    """The variables that the recorder's constructor looks for (and takes out again), added to `current`."""
    loaded = current.get("LD_PRELOAD", "")
    return {
        **current,
        "LD_PRELOAD": f"{LIBRARY}:{loaded}" if loaded else str(LIBRARY),
        "LEAKLINE_PID": str(pid),
        "LEAKLINE_RECORDING": pattern,
        **({"LEAKLINE_FOLLOW": "1"} if follow else {}),
    }


def _trouble(name: str, number: int) -> CommandError:
    if number == errno.ENOENT:
        return CommandError(f"{name}: there is no such command", "is it in PATH, and spelled right?", 127)
    reason = os.strerror(number)
    return CommandError(f"{name} cannot be executed: {reason}", f"see `ls -l {name}` and `file {name}`", 126)


def tidy(folder: Path) -> None:
    """Remove recordings of processes that ended more than a week ago."""
    with suppress(OSError):
        for file in folder.glob("*.leakline"):
            with suppress(OSError):
                ended = not Path("/proc", file.name.partition("-")[0]).exists()
                if ended and time.time() - file.stat().st_mtime > KEPT_S:
                    file.unlink()
