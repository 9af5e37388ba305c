"""Child processes of the benchmark: started in a session of their own, always ended by their process id."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

from bench.systems import Command

END_DEADLINE_S = 3.0  # from SIGTERM to SIGKILL
TOLD_BYTES = 2000  # of what a failed process wrote last


class ProcessError(Exception):
    """A process did not do its part; the message says which, how it ended and what it wrote last."""


def free_port() -> int:
    """Find a port of loopback that nobody uses now. Every system is told its port, so none has to report it.

    It lies below the range from which the kernel takes the ports of outgoing connections: a client that connects to a
    port of that range before its server listens can end up connected to itself.
    """
    ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for _ in range(64):
        port = random.randrange(min(10_000, ephemeral - 1000), ephemeral)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise ProcessError("64 ports of loopback tried, all taken: look at `ss -ltn`")


class Servers:
    """The server processes of one system, while they run."""

    def __init__(self, processes: Sequence[tuple[subprocess.Popen[bytes], IO[bytes]]]):
        self._processes = processes

    def describe(self) -> str:
        """Say for each process whether it runs and what it wrote last."""
        return "\n".join(_describe(process, _tail(output)) for process, output in self._processes)


@contextmanager
def running(commands: Sequence[Command]) -> Iterator[Servers]:
    """Run `commands` side by side while the block lasts, then end them, the last one first."""
    with ExitStack() as stack:
        started = []
        for command in commands:
            output = stack.enter_context(tempfile.TemporaryFile())
            process = stack.enter_context(_child(command, stdout=output.fileno(), stderr=output.fileno()))
            started.append((process, output))
        yield Servers(started)


def output_of(command: Command, deadline_s: float) -> bytes:
    """Run `command` to its end and return what it wrote to stdout; raises `ProcessError`."""
    with _child(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            stdout, stderr = process.communicate(timeout=deadline_s)
        except subprocess.TimeoutExpired:
            raise ProcessError(f"no answer from {' '.join(command[:4])} within {deadline_s:g} s") from None
        if process.returncode != 0:
            raise ProcessError(_describe(process, stderr))
        return stdout


@contextmanager
def _child(command: Command, stdout: int, stderr: int) -> Iterator[subprocess.Popen[bytes]]:
    # A session of its own: Ctrl-C reaches this program alone, which then ends its children in order.
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, start_new_session=True)
    try:
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        with suppress(subprocess.TimeoutExpired):
            process.wait(END_DEADLINE_S)
    finally:  # also when a second Ctrl-C cuts the wait short
        process.kill()
        process.wait()
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


def _tail(output: IO[bytes]) -> bytes:
    size = os.fstat(output.fileno()).st_size
    return os.pread(output.fileno(), TOLD_BYTES, max(0, size - TOLD_BYTES))


def _describe(process: subprocess.Popen[bytes], wrote: bytes) -> str:
    assert isinstance(process.args, list)
    status = process.poll()
    if status is None:
        state = "runs"
    elif status < 0:
        state = f"ended by {signal.Signals(-status).name}"
    else:
        state = f"ended with status {status}"
    text = wrote[-TOLD_BYTES:].decode(errors="replace").strip().replace("\n", "\n    ")
    return f"  {' '.join(process.args[:6])} … {state}" + (f", wrote:\n    {text}" if text else "")
