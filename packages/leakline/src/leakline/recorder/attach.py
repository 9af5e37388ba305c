"""Loads the recorder into a running process, and takes it out again.

Loaded by dlopen in one of its threads (ptrace.py), it points the import tables of all libraries at its own functions;
when it is taken out they are as they were. The library itself stays mapped and does nothing: a thread may still be on
its way through it.
"""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from errno import EALREADY
from pathlib import Path

from leakline.errors import LeaklineError, NoSuchProcessError
from leakline.proc.folders import open_folder
from leakline.recorder import by_python, gdb, ptrace
from leakline.recorder.attachable import LAUNCH, AttachError, Target, examine, refused
from leakline.recorder.exports import Exports
from leakline.recorder.process_identity import start_time_ticks
from leakline.recorder.ptrace import Called, Loaded, Status
from leakline.recorder.recording import Recording
from leakline.recorder.recording_file import read_recording
from leakline.recorder.recording_place import find_recording, recording_path, recordings_folder
from leakline.recorder.target_library import LIBRARY

_BEGIN, _END = "leakline_recorder_attach", "leakline_recorder_detach"
_SHORT_S = 0.3  # to wait for a safe place where there was none before
_PLACES = ("/tmp", "/var/tmp", "/dev/shm", "/run")  # of a process that does not see our files


class Attached:
    """A process that is being recorded. Use as a context manager, or call `detach`. Not thread-safe.

    `launched`: it was launched under the recorder, so it is only read here, and goes on being recorded. `held_s`: how
    long its thread stood still (`by` gdb: all its threads; by python: its interpreter); `waited_s`: for a processor, of
    the last time that it did.
    The recording can be read after the process has ended, until `close`.
    """

    def __init__(self, pid: int, path: Path, *, found: bool, called: Called | None = None) -> None:
        self.pid, self.path = pid, path
        self.held_s, self.waited_s = (called.stopped_s, called.waited_s) if called else (0.0, 0.0)
        self.by = called.by if called else "ptrace"
        self.found = found
        self._started = start_time_ticks(pid)
        self._file: int | None = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.launched = self.recording().mode == "launched"
        self._attached = not self.launched

    def __enter__(self) -> Attached:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.detach()
        finally:
            self.close()

    @property
    def readable(self) -> Path:
        """The recording, under a name that lasts until `close`, also when the process is gone."""
        return Path(f"/proc/self/fd/{self._file}")

    def recording(self) -> Recording:
        """What is recorded by now. Raises RecordingFormatError."""
        return read_recording(self.readable)

    def detach(self) -> float:
        """Puts the process back as it was; returns for how many seconds a thread stood still (0: nothing was to do).

        Raises a LeaklineError if it could not be done: the process goes on being recorded then.
        """
        if not self._attached or start_time_ticks(self.pid) != self._started:
            return 0.0
        target = examine(self.pid)
        library = _recorder_in(target)
        patience_s = None if self.by == "ptrace" else _SHORT_S
        called = _call(target, library, _END, patience_s=patience_s) if library else None
        self._attached = False
        self.waited_s = called.waited_s if called else 0.0
        return called.stopped_s if called else 0.0

    def close(self) -> None:
        """Lets go of the recording, and removes its file if it was made here. Idempotent."""
        if self._file is None:
            return
        os.close(self._file)
        self._file = None
        if not self._attached and not self.launched and not str(self.path).startswith("/proc/"):
            with suppress(OSError):
                self.path.unlink()


def attach(pid: int) -> Attached:
    """Begins to record a running process, or finds the recording that it is in.

    One thread of it stands still for some milliseconds.

    Raises a LeaklineError that says why it cannot be done: NotPermittedError, UnsupportedError, AttachError, …; the
    process is untouched then. Safe in any thread.
    """
    present = find_recording(pid)
    if present is not None:
        with suppress(OSError):
            attached = Attached(pid, present, found=True)
            if attached.recording().live:
                return attached
            attached.close()
    target = examine(pid)
    path = _path_for(target)
    library = _recorder_in(target)
    called = _call(target, library, _BEGIN, path) if library else _load(target, path)
    if called.result == -EALREADY:
        raise AttachError(f"process {pid} is being recorded already, and its recording cannot be read", "look as root")
    if called.result < 0:
        raise AttachError(f"the recording of process {pid} could not begin: {os.strerror(-called.result)}", LAUNCH)
    found = find_recording(pid)
    if found is None:
        if library := _recorder_in(examine(pid)):
            _call(target, library, _END)
        raise AttachError(f"process {pid} could not write its recording where it can be read", "attach as root")
    return Attached(pid, found, found=False, called=called)


def _path_for(target: Target) -> str | None:
    """Where the target makes its recording; None: in a file without a name, as it cannot make one in our folder."""
    if not (target.same_user and target.same_files):
        return None
    path = recording_path(recordings_folder(in_memory=True), target.pid)
    with suppress(FileNotFoundError):
        path.unlink()  # of an earlier attachment that ended
    return str(path)


def _recorder_in(target: Target) -> Loaded | None:
    """The recorder, if the process has it loaded: by an earlier attachment, or launched and inactive."""
    return next(iter(ptrace.named(ptrace.loaded(target.pid), LIBRARY.name)), None)


def _call(
    target: Target, library: Loaded, name: str, argument: str | None = None, *, patience_s: float | None = None
) -> Called:
    function = ptrace.symbols(target.pid, library, name)[name]
    return _checked(target, _run(target, function, argument, patience_s=patience_s))


def _run(
    target: Target,
    function: int,
    argument: str | None,
    library_path: str | None = None,
    patience_s: float | None = None,
) -> Called:
    """By ptrace. Where no thread ever enters a system call: by Python if that is what computes, else by gdb, which
    stops all threads. A seccomp filter would see the calls of these two.
    """
    if target.obstacle is None:
        called = ptrace.call(
            target.pid,
            target.loader,
            function,
            argument,
            library_path=library_path,
            suspend_seccomp=target.seccomp_filter,
            patience_s=patience_s,
        )
        if called.status is not Status.NO_SAFE_POINT or target.seccomp_filter:
            return called
    asked = by_python.call(target.pid, function, argument, library_path=library_path)
    if asked is not None:
        return asked
    if target.obstacle is not None:
        raise target.obstacle
    if gdb.installed():
        libraries = tuple(ptrace.loaded(target.pid))
        return gdb.call(target.pid, target.loader, libraries, function, argument, library_path=library_path)
    return called


def _load(target: Target, path: str | None) -> Called:
    """Loads the recorder from where the target sees it, else from a copy made for it, which is gone afterwards."""
    if not LIBRARY.exists():
        raise AttachError("the recorder's library is not there", "install a C compiler and leakline again")
    called = None
    if _sees(target):
        called = _open(target, str(LIBRARY), path)
        if called.status is not Status.NOT_LOADED:
            return _checked(target, called)
    for place in _PLACES:
        copy = _Copy.make(target.pid, place)
        if copy is None:
            continue
        try:
            called = _open(target, copy.path, path)
        finally:
            copy.remove()
        if called.status is not Status.NOT_LOADED:
            break
    if called is None:
        raise AttachError(
            f"process {target.pid} sees other files than leakline, and the recorder could not be copied to them",
            f"run leakline inside its container, or {LAUNCH}",
        )
    return _checked(target, called)


def _open(target: Target, library: str, path: str | None) -> Called:
    function = Exports.in_file(LIBRARY).symbols([_BEGIN])[_BEGIN]
    return _run(target, function, path, library)


def _checked(target: Target, called: Called) -> Called:
    if called.status is Status.DONE:
        return called
    raise _error(target, called)


def _error(target: Target, called: Called) -> LeaklineError:
    what = f"process {target.pid} could not be attached to: {called.why()}"
    if called.status is Status.GONE:
        return NoSuchProcessError(f"process {target.pid} ended while it was being attached to")
    if called.status is Status.REFUSED:
        if target.seccomp_filter and os.geteuid() != 0:
            hint = f"only root can set its seccomp filter aside meanwhile: sudo leakline attach {target.pid}"
            return AttachError(what, hint)
        return refused(target.pid, os.strerror(called.error))
    if called.status is Status.NO_SAFE_POINT and called.by == "ptrace" and not target.seccomp_filter:
        hint = "gdb can stop a thread that only computes: install it (Debian: apt install gdb) and try again"
        return AttachError(what, f"{hint}, or {LAUNCH}")
    if called.status is Status.NO_SAFE_POINT:
        return AttachError(what, f"try again when it is less busy, or {LAUNCH}")
    return AttachError(what, LAUNCH)


def _sees(target: Target) -> bool:
    try:
        there, here = os.stat(f"/proc/{target.pid}/root{LIBRARY}"), LIBRARY.stat()
    except OSError:
        return False
    return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)


class _Copy:
    """A copy of the recorder in a folder of its own, made through /proc/PID/root. No link is followed on the way."""

    def __init__(self, folder: int, name: str, path: str) -> None:
        self._folder, self._name, self.path = folder, name, path

    @classmethod
    def make(cls, pid: int, place: str) -> _Copy | None:
        """None where the target has no such folder, or it cannot be written."""
        name = f"leakline-{secrets.token_hex(8)}"
        try:
            folder = open_folder(pid, place)
        except OSError:
            return None
        try:
            os.mkdir(name, 0o755, dir_fd=folder)
        except OSError:
            os.close(folder)
            return None
        copy = cls(folder, name, f"{place}/{name}/{LIBRARY.name}")
        try:
            copy._write()
        except OSError:
            copy.remove()
            return None
        return copy

    def _write(self) -> None:
        inner = os.open(self._name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._folder)
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with os.fdopen(os.open(LIBRARY.name, flags, 0o755, dir_fd=inner), "wb") as file:
                file.write(LIBRARY.read_bytes())
                os.fchmod(file.fileno(), 0o755)  # whatever our umask: the target may be another user
            os.fchmod(inner, 0o755)
        finally:
            os.close(inner)

    def remove(self) -> None:
        try:
            with suppress(OSError):
                os.unlink(f"{self._name}/{LIBRARY.name}", dir_fd=self._folder)
            with suppress(OSError):
                os.rmdir(self._name, dir_fd=self._folder)
        finally:
            os.close(self._folder)
