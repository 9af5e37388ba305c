"""Where recordings are: the folder that they are made in, and which one a running process writes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from leakline.recorder.errors import RecorderError, RecordingFormatError
from leakline.recorder.process_identity import start_time_ticks
from leakline.recorder.recording_layout import HEADER_SIZE, LARGEST_FILE, SMALLEST_FILE, Header


def recordings_folder(*, in_memory: bool = False) -> Path:
    """The folder for recordings: $LEAKLINE_DIR, else $XDG_RUNTIME_DIR/leakline, else /tmp/leakline-UID. Makes it.

    `in_memory`: in /dev/shm instead of /tmp, where there is one: storage on a disk takes milliseconds to get, for which
    a process that is being attached to would stand still.

    Raises RecorderError if it cannot be made, or if it is another user's, who could read or replace what is in it.
    """
    if chosen := os.environ.get("LEAKLINE_DIR"):
        folder = Path(chosen)
    elif runtime := os.environ.get("XDG_RUNTIME_DIR"):
        folder = Path(runtime) / "leakline"
    else:
        place = "/dev/shm" if in_memory and os.access("/dev/shm", os.W_OK) else "/tmp"
        folder = Path(f"{place}/leakline-{os.getuid()}")
    hint = "set LEAKLINE_DIR to a folder of your own"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.lstat()
    except OSError as error:
        raise RecorderError(f"recordings cannot be kept in {folder}: {error.strerror}", hint) from error
    if folder.is_symlink() or status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise RecorderError(f"recordings cannot be kept in {folder}: others can change what is in it", hint)
    return folder


def recording_pattern(folder: Path) -> str:
    """LEAKLINE_RECORDING for a process that is to be launched: PID-STARTTICKS.leakline in `folder`."""
    return f"{_plain(folder.absolute())}/%p-%t.leakline"


def named_pattern(file: Path) -> str:
    """The same where the user chose the file: FILE of the launched process, FILE.PID-STARTTICKS of those it starts."""
    return f"{_plain(file.absolute())}%c"


def _plain(path: Path) -> str:
    return str(path).replace("%", "%%")


def recording_path(folder: Path, pid: int) -> Path:
    """The recording of a running process."""
    return folder.absolute() / f"{pid}-{start_time_ticks(pid)}.leakline"


def find_recording(pid: int) -> Path | None:
    """The recording of a running process, if there is one that can be read: by what it has mapped.

    A file is found by its path, one without a name (its folder could not be written) through /proc/PID/map_files,
    which only root may follow. The pid and the start time in it must be those of the process.
    """
    for path in _mapped(pid):
        try:
            with open(path, "rb") as file:
                header = Header(file.read(HEADER_SIZE), os.fstat(file.fileno()).st_size, str(path))
        except (OSError, RecordingFormatError):
            continue
        if header.start_time_ticks == start_time_ticks(pid):
            return path
    return None


def _mapped(pid: int) -> Iterator[Path]:
    try:
        with open(f"/proc/{pid}/maps", encoding="utf-8", errors="surrogateescape") as maps:
            lines = [line.rstrip("\n").split(maxsplit=5) for line in maps]
    except OSError:
        return
    seen = set()
    for fields in lines:
        target = fields[5] if len(fields) == 6 else ""
        anonymous = target.startswith("/memfd:leakline ")
        if target in seen or not (anonymous or _may_be_one(fields)):
            continue
        seen.add(target)
        if not anonymous:
            yield Path(target)
            yield Path(f"/proc/{pid}/root{target}")
        yield Path(f"/proc/{pid}/map_files/{fields[0]}")


def _may_be_one(fields: list[str]) -> bool:
    """Whether a line of /proc/PID/maps may be of a recording, whatever its name: shared, writable, of that size."""
    if len(fields) < 6 or fields[1][1:4:2] != "ws" or not fields[5].startswith("/"):
        return False
    if fields[5].startswith("/dev/") and not fields[5].startswith("/dev/shm/"):
        return False  # a device: to open it may do something
    start, _, end = fields[0].partition("-")
    return SMALLEST_FILE <= int(end, 16) - int(start, 16) <= LARGEST_FILE
