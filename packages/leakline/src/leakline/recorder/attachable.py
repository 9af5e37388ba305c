"""Whether the recorder can be loaded into a running process, without touching it; if not, why, and what to do."""

from __future__ import annotations

import mmap
import os
import signal
from contextlib import suppress
from pathlib import Path

import msgspec

from leakline import remote_exec
from leakline.errors import LeaklineError, NotPermittedError, UnsupportedError, UsageError
from leakline.proc.process import Process, read_stat
from leakline.recorder import ptrace
from leakline.recorder.errors import RecorderError
from leakline.recorder.exports import Exports, ExportsError
from leakline.recorder.ptrace import Loaded, Loader

LAUNCH = "launch it under the recorder: leakline run -- COMMAND"
WITHOUT = "without the line that opened them: leakline {pid}"
_GO = b"\xff Go buildinf:"
_GO_WITHIN = 1 << 26
_SECCOMP_STRICT, _SECCOMP_FILTER = 1, 2


class AttachError(RecorderError):
    """The recorder could not be loaded into the process, which goes on as it was."""


class Target(msgspec.Struct, frozen=True):
    """A process that can be attached to, as far as one can know: what attaching needs."""

    pid: int
    started: int
    libraries: tuple[Loaded, ...]
    loader: Loader
    seccomp_filter: bool
    same_user: bool  # its files can be ours, and the reverse
    same_files: bool  # it sees the same files as we, by the same names
    obstacle: LeaklineError | None  # why ptrace cannot do it; its own Python may


def examine(pid: int) -> Target:
    """Everything that can be checked beforehand. Raises a LeaklineError that says what is in the way."""
    if pid == os.getpid():
        raise UsageError("leakline would record itself", "give the number of another process")
    process = Process(pid)
    with process.reading():
        status = _status(pid)
    _check_state(pid, status)
    obstacle = _obstacle(pid, status)
    if obstacle is not None and (status.get("Seccomp") == str(_SECCOMP_FILTER) or not remote_exec.possible()):
        raise obstacle
    try:
        _check_program(pid)
        libraries = tuple(ptrace.loaded(pid))
        loader = ptrace.loader_of(pid, list(libraries))
    except PermissionError as error:
        raise refused(pid, str(error)) from error
    except ExportsError as error:
        raise AttachError(f"the C library of process {pid} cannot be read: {error.message}", LAUNCH) from error
    except OSError as error:
        raise process.explained(error) from error
    if loader is None:
        raise UnsupportedError(_without_loader(pid, libraries), LAUNCH)
    return Target(
        pid=pid,
        started=process.started,
        libraries=libraries,
        loader=loader,
        seccomp_filter=status.get("Seccomp") == str(_SECCOMP_FILTER),
        same_user=status.get("Uid", "").split()[1:2] == [str(os.geteuid())],
        same_files=_namespace(pid, "mnt") == _namespace(os.getpid(), "mnt") and os.readlink(f"/proc/{pid}/root") == "/",
        obstacle=obstacle,
    )


def refused(pid: int, error: str) -> LeaklineError:
    """Why ptrace, or a look at the process's memory, is not permitted."""
    traced = _status(pid).get("TracerPid", "0")
    if traced != "0":
        return _traced(pid, traced)
    owner = os.stat(f"/proc/{pid}").st_uid
    scope = 0
    with suppress(OSError, ValueError):
        scope = int(Path("/proc/sys/kernel/yama/ptrace_scope").read_text())
    if scope == 3:
        hint = f"this system forbids it to everybody (kernel.yama.ptrace_scope is 3): {LAUNCH}"
    elif os.geteuid() == 0:
        hint = f"this root lacks CAP_SYS_PTRACE (docker run --cap-add SYS_PTRACE): attach from the host, or {LAUNCH}"
    elif scope and owner == os.geteuid():
        hint = f"kernel.yama.ptrace_scope is {scope}: type `sudo leakline attach {pid}`"
    else:
        hint = f"type `sudo leakline attach {pid}`"
    return NotPermittedError(f"the kernel does not let this user attach to process {pid} ({error})", hint)


def _status(pid: int) -> dict[str, str]:
    text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
    return {name: value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}


def _traced(pid: int, tracer: str) -> LeaklineError:
    try:
        name = read_stat(int(tracer)).name
    except LeaklineError:
        name = "a process that cannot be seen from here"
    return AttachError(
        f"process {pid} is being traced by {name} (process {tracer}); the kernel allows one tracer",
        "end that one, or " + WITHOUT.format(pid=pid),
    )


def _check_state(pid: int, status: dict[str, str]) -> None:
    if status.get("State", "")[:1] in ("T", "t"):
        traced = status.get("TracerPid", "0")
        if traced != "0":
            raise _traced(pid, traced)
        raise AttachError(f"process {pid} is stopped: none of its threads can run", f"type `kill -CONT {pid}`")
    if status.get("Seccomp") == str(_SECCOMP_STRICT):
        raise UnsupportedError(
            f"process {pid} may only read and write (seccomp's strict mode)", WITHOUT.format(pid=pid)
        )


def _obstacle(pid: int, status: dict[str, str]) -> LeaklineError | None:
    """What is in the way of ptrace alone."""
    traced = status.get("TracerPid", "0")
    if traced != "0":
        return _traced(pid, traced)
    if int(status.get("SigIgn", "0"), 16) >> (signal.SIGSEGV - 1) & 1:
        # A call ends by SIGSEGV at address 0, and the kernel makes an ignored SIGSEGV that happens SIG_DFL.
        return UnsupportedError(f"process {pid} ignores SIGSEGV, which attaching would change", LAUNCH)
    return None


def _check_program(pid: int) -> None:
    """The program itself: machine, and whether it is dynamically linked."""
    header = os.open(f"/proc/{pid}/exe", os.O_RDONLY | os.O_CLOEXEC)
    try:
        head = os.pread(header, 20, 0)
        if head[4:5] == b"\x01":
            raise UnsupportedError(f"process {pid} is 32-bit; the recorder is 64-bit", WITHOUT.format(pid=pid))
        own = os.uname().machine
        if head[18:20] != {"x86_64": b"\x3e\0", "aarch64": b"\xb7\0"}.get(own, head[18:20]):
            raise UnsupportedError(f"process {pid} is a program of another machine than {own}", WITHOUT.format(pid=pid))
        interpreter = Exports.in_file(f"/proc/{pid}/exe").interpreter()
        if "musl" in interpreter:
            raise UnsupportedError(
                f"process {pid} runs on musl ({interpreter}), which loads no recorder into a running process",
                LAUNCH,
            )
        if not interpreter and not any("ld-linux" in one.path for one in ptrace.loaded(pid)):
            why = "a Go program: it makes its system calls itself" if _is_go(header) else "statically linked"
            raise UnsupportedError(
                f"process {pid} is {why}; there is no C library to intercept", WITHOUT.format(pid=pid)
            )
    finally:
        os.close(header)


def _is_go(file: int) -> bool:
    size = min(os.fstat(file).st_size, _GO_WITHIN)
    with mmap.mmap(file, size, prot=mmap.PROT_READ) as content:
        return content.find(_GO) >= 0


def _without_loader(pid: int, libraries: tuple[Loaded, ...]) -> str:
    if any("musl" in one.path for one in libraries):
        return f"process {pid} runs on musl, which loads no recorder into a running process"
    return f"process {pid} has no C library that could load the recorder"


def _namespace(pid: int, kind: str) -> int:
    try:
        return os.stat(f"/proc/{pid}/ns/{kind}").st_ino
    except OSError:
        return 0
