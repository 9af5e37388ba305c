"""Calls functions in another process through gdb: for one of which no thread ever enters a system call.

Such a thread (a loop that computes) is never at a place that is safe by itself: it may be inside malloc or the
loader. gdb unwinds every thread's stack, and the calls are made in one that has neither on it (unwound.py decides).
All threads stand still while gdb looks, a tenth of a second or more; during the calls all run. Driven through its
machine interface (GDB/MI), with addresses alone: it needs no symbols of the process.
"""

from __future__ import annotations

import os
import re
import selectors
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from types import TracebackType

import msgspec

from leakline.recorder import ptrace
from leakline.recorder.exports import ExportsError
from leakline.recorder.ptrace import Called, Loaded, Loader, Status
from leakline.recorder.unwound import Places, Unwound, can_call

TRIES = 10  # stops, as long as no thread is at a safe place
PAUSE_S = 0.05  # between two stops
ANSWER_LIMIT_S = 60.0  # to read the symbols of a large program
CALL_LIMIT_S = 10.0  # for one call: it waits for locks that others hold
FRAMES = 1000
STACK_ROOM = 64 * 1024  # as native/ptrace_wait.c has it
_RED_ZONE = 128
_NOTHING = "unsigned long (*)(void)"
_SETTINGS = (
    "set confirm off",
    "set auto-load off",
    "set debuginfod enabled off",
    "set debug-file-directory",  # to read libc's takes a second, and unwinding needs none of it
    "set auto-solib-add off",  # they are read before the process is stopped, which takes seconds
    "set language c",
    "set unwindonsignal on",
    "set backtrace past-main on",
    "set print frame-arguments none",
    "handle all nostop noprint pass",
    "handle SIGSEGV SIGBUS SIGILL SIGFPE stop print nopass",  # in a call: it is taken back; elsewhere it happens again
    "handle SIGSTOP stop print nopass",  # ours: to end a call that does not end
)
_FRAME = re.compile(r'frame=\{level="\d+",addr="(0x[0-9a-f]+)"(?:,func="((?:[^"\\]|\\.)*)")?')
_THREAD = re.compile(r'\bid="(\d+)",target-id="[^"]*?(?:LWP|process) (\d+)')
_VALUE = re.compile(r'value="((?:[^"\\]|\\.)*)"')
_NUMBER = re.compile(r"-?(?:0x[0-9a-f]+|\d+)")


def installed() -> str | None:
    """The path of gdb, if there is one."""
    return shutil.which("gdb")


class GdbError(Exception):
    """gdb said no; or nothing, and was ended."""


class _Session:
    """One gdb. Its own session: Ctrl-C does not reach it in the middle of a call."""

    def __init__(self, path: str) -> None:
        environment = {**os.environ, "DEBUGINFOD_URLS": "", "LC_ALL": "C"}
        self._process = subprocess.Popen(
            [path, "--nx", "--quiet", "--interpreter=mi2"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env=environment,
        )
        self._rest = b""
        self._selector = selectors.DefaultSelector()
        assert self._process.stdout is not None
        self._selector.register(self._process.stdout, selectors.EVENT_READ)

    def __enter__(self) -> _Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """gdb detaches as it ends."""
        self._selector.close()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        try:
            self._process.wait(ANSWER_LIMIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def ask(self, command: str, limit_s: float = ANSWER_LIMIT_S) -> str:
        """The answer to one command. Raises GdbError with what gdb says of a failure, TimeoutError."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(command.encode(errors="surrogateescape") + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise GdbError("gdb ended") from error
        return self.answer(limit_s)

    def answer(self, limit_s: float) -> str:
        until = time.monotonic() + limit_s
        while True:
            line = self._line(until)
            if line.startswith("^error"):
                found = re.search(r'msg="((?:[^"\\]|\\.)*)"', line)
                raise GdbError(_plain(found[1]) if found else line)
            if line.startswith("^"):
                return line

    def _line(self, until: float) -> str:
        assert self._process.stdout is not None
        while b"\n" not in self._rest:
            if not self._selector.select(max(0.0, until - time.monotonic())):
                raise TimeoutError
            piece = os.read(self._process.stdout.fileno(), 1 << 16)
            if not piece:
                raise GdbError("gdb ended")
            self._rest += piece
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode(errors="replace").rstrip("\r")

    def console(self, command: str) -> str:
        quoted = command.replace("\\", "\\\\").replace('"', '\\"')
        return self.ask(f'-interpreter-exec console "{quoted}"')

    def value(self, expression: str, limit_s: float = ANSWER_LIMIT_S) -> str:
        found = _VALUE.search(self.ask(f'-data-evaluate-expression "{expression}"', limit_s))
        return _plain(found[1]) if found else ""

    def number(self, expression: str, limit_s: float = ANSWER_LIMIT_S) -> int:
        """Raises GdbError where the answer is none, as after a signal inside a call."""
        text = self.value(expression, limit_s)
        found = _NUMBER.search(text.rpartition(")")[2])
        if not found:
            raise GdbError(text)
        return int(found[0], 0)


def _plain(text: str) -> str:
    return re.sub(r"\\(.)", lambda found: {"n": "\n", "t": "\t"}.get(found[1], found[1]), text)


class _Stopped:
    """The process, stopped: its threads, and calls in one of them."""

    def __init__(self, session: _Session, pid: int) -> None:
        self._session, self._pid = session, pid
        self._sp = 0

    def threads(self) -> list[tuple[str, int, list[Unwound]]]:
        found = []
        for number, tid in _THREAD.findall(self._session.ask("-thread-info")):
            answer = self._session.ask(f"-stack-list-frames --thread {number} 0 {FRAMES}")
            frames = [Unwound(int(address, 16), _plain(name)) for address, name in _FRAME.findall(answer)]
            found.append((number, int(tid), frames))
        return found

    def use(self, number: str) -> None:
        self._session.ask(f"-thread-select {number}")
        self._session.ask("-stack-select-frame 0")
        self._sp = self._session.number("(unsigned long)$sp")

    def has_room(self) -> bool:
        """Whether the stack of the thread in use has room for the calls; a coroutine's may have none."""
        return any(
            part.path == "[stack]" or self._sp - part.start >= STACK_ROOM
            for part in ptrace.mappings(self._pid)
            if part.start <= self._sp < part.end
        )

    def restore(self) -> None:
        """After a call that was taken back in the middle of its expression."""
        self._session.console(f"set var $sp = {self._sp:#x}")

    def call(self, kind: str, address: int, text: str | None, *more: int) -> int:
        """`kind`: the function's type, in C. Raises GdbError where a signal ended it, TimeoutError.

        The text is put under the red zone, and the stack pointer below it, for the call alone: one expression, which
        gdb goes through also where leakline is killed meanwhile.
        """
        place, sp = 0, self._sp
        if text is not None:
            data = os.fsencode(text) + b"\0"
            place = sp = (self._sp - _RED_ZONE - len(data)) & ~15
            self._session.ask(f"-data-write-memory-bytes {place:#x} {data.hex()}")
        words = ", ".join((f"(void *){place:#x}", *map(str, more)) if kind != _NOTHING else ())
        called = f"(($sp = {sp:#x}), ($leakline = (({kind}){address:#x})({words})), ($sp = {self._sp:#x}), $leakline)"
        try:
            return self._session.number(called, CALL_LIMIT_S)
        except TimeoutError:
            os.kill(self._pid, signal.SIGSTOP)  # gdb takes the call back, and keeps the signal
            with suppress(GdbError):
                self._session.answer(ANSWER_LIMIT_S)
            raise

    def word(self, address: int, kind: str = "unsigned long") -> int:
        return self._session.number(f"*({kind} *){address:#x}")

    def set_word(self, address: int, value: int) -> None:
        self._session.console(f"set var *(int *){address:#x} = {value}")

    def text(self, address: int) -> str:
        return self._session.value(f"(char *){address:#x}").partition('"')[2].removesuffix('"')


def call(
    pid: int,
    loader: Loader,
    libraries: tuple[Loaded, ...],
    function: int,
    argument: str | None = None,
    *,
    library_path: str | None = None,
) -> Called:
    """As ptrace.call: `function(argument)` in one of the process's threads, with `library_path` loaded before.

    All threads stand still while gdb reads symbols and unwinds, for tenths of a second. Takes seconds at most where no
    thread is at a safe place. Safe in any thread.
    """
    path = installed()
    if path is None:
        return _called(Status.FAILED, message="gdb is not installed")
    places = _places(pid, loader, libraries)
    request = _Request(loader, function, argument, library_path)
    stopped_s = 0.0
    with _Session(path) as session:
        try:
            for setting in _SETTINGS:
                _lenient(session, setting)
            _read_symbols(session, pid, places.program, libraries)
            for attempt in range(TRIES):
                if attempt:
                    time.sleep(PAUSE_S)
                began = time.monotonic()
                session.ask(f"-target-attach {pid}")
                try:
                    called = _in_a_thread(_Stopped(session, pid), places, request)
                finally:
                    session.ask("-target-detach")
                    stopped_s += time.monotonic() - began
                if called is not None:
                    return msgspec.structs.replace(called, stopped_s=stopped_s)
        except GdbError as error:
            return _called(_status_of(pid), message=str(error).partition("\n")[0], stopped_s=stopped_s)
        except TimeoutError:
            return _called(Status.TOO_LONG, stopped_s=stopped_s)
    return _called(Status.NO_SAFE_POINT, stopped_s=stopped_s)


class _Request(msgspec.Struct, frozen=True):
    """What is to be called, as `call` has it."""

    loader: Loader
    function: int
    argument: str | None
    library_path: str | None


def _lenient(session: _Session, command: str) -> None:
    """A setting that an older gdb may not know."""
    with suppress(GdbError):
        session.console(command)


def _read_symbols(session: _Session, pid: int, program: str, libraries: tuple[Loaded, ...]) -> None:
    """Before the process is stopped: without their unwinding rules no stack is known to its end."""
    _lenient(session, f"file /proc/{pid}/exe")
    for one in libraries:
        if one.path != program:
            _lenient(session, f"add-symbol-file '/proc/{pid}/root{one.path}' -o {one.base:#x}")


def _places(pid: int, loader: Loader, libraries: tuple[Loaded, ...]) -> Places:
    own = set()
    for one in libraries:
        with suppress(OSError, ExportsError):
            if ptrace.symbols(pid, one, "malloc"):
                own.add(one.path)
    c_library = tuple((part, one.path) for one in libraries for part in one.code)
    libc = {path for (start, end), path in c_library if (start, end) in loader.c_library}
    return Places(
        code=c_library,
        program=os.readlink(f"/proc/{pid}/exe").removesuffix(" (deleted)"),
        c_library=frozenset(libc),
        loader=frozenset(path for (start, _), path in c_library if loader.linker[0] <= start < loader.linker[1]),
        allocators=frozenset(own - libc),
    )


def _in_a_thread(process: _Stopped, places: Places, request: _Request) -> Called | None:
    """None: no thread is where calls are safe."""
    for number, tid, frames in process.threads():
        if not can_call(frames, places):
            continue
        process.use(number)
        if process.has_room():
            return msgspec.structs.replace(_make_calls(process, request), tid=tid)
    return None


def _make_calls(process: _Stopped, request: _Request) -> Called:
    """With the thread's errno kept: the program may be about to look at it."""
    loader = request.loader
    errno_at = value = 0
    try:
        if loader.errno_location:
            errno_at = process.call(_NOTHING, loader.errno_location, None)
            value = process.word(errno_at, "int")
        called = _load_and_call(process, request)
    except GdbError as error:
        return _called(Status.CRASHED, message=str(error).partition("\n")[0])
    except TimeoutError:
        return _called(Status.TOO_LONG)
    finally:
        process.restore()
        if errno_at:
            process.set_word(errno_at, value)
    return called


def _load_and_call(process: _Stopped, request: _Request) -> Called:
    loader, function = request.loader, request.function
    if request.library_path is not None:
        kind = "unsigned long (*)(void *, int)"
        handle = process.call(kind, loader.dlopen, request.library_path, loader.mode)
        if not handle:
            text = process.call(_NOTHING, loader.dlerror, None) if loader.dlerror else 0
            return _called(Status.NOT_LOADED, message=process.text(text) if text else "")
        function += process.word(handle)  # a handle is a struct link_map, whose first member is the load address
    return _called(Status.DONE, result=process.call("int (*)(void *)", function, request.argument))


def _status_of(pid: int) -> Status:
    return Status.FAILED if os.path.exists(f"/proc/{pid}") else Status.GONE


def _called(status: Status, *, result: int = 0, message: str = "", stopped_s: float = 0.0) -> Called:
    return Called(status, result, 0, message, stopped_s, 0.0, 0, -1, False, by="gdb")
