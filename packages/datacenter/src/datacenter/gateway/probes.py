"""One check of a foreign server: `await probe(host, port)` returns when it passes and raises ProbeFailedError when not.

A probe opens one connection (or one child process) and has closed it when it ends, however it ends; whoever calls it
bounds its time by cancelling it (`asyncio.wait_for`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import shutil
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from datacenter.errors import BadOptionError

#: An answer is read no further.
LONGEST_LINE: Final = 4096

Probe = Callable[[str, int], Awaitable[None]]


class ProbeFailedError(Exception):
    """Why a server did not pass, in words for the log."""


def probe_named(check: str) -> Probe:
    """The probe that `--check` names: `tcp`, `redis`, `http`, `http:/PATH`, `command:WORDS`. Raises BadOptionError."""
    kind, _, rest = check.partition(":")
    if kind in ("tcp", "redis") and not rest:
        return tcp if kind == "tcp" else redis
    if kind == "http" and (not rest or rest.startswith("/")) and not set(rest) & set(" \r\n"):
        return http(rest or "/")
    if kind == "command":
        return _command(rest)
    raise BadOptionError(
        f"there is no check {check!r}", "Use tcp, redis, http, http:/path, or 'command:words of a command'."
    )


@contextlib.asynccontextmanager
async def _connected(host: str, port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    try:
        reader, writer = await asyncio.open_connection(host, port, limit=LONGEST_LINE)
    except OSError as error:
        raise ProbeFailedError(error.strerror or str(error)) from None
    try:
        yield reader, writer
    except (OSError, EOFError) as error:
        raise ProbeFailedError(f"the connection ended ({error})") from None
    finally:
        writer.transport.abort()  # no farewell to a server that may not take it


async def tcp(host: str, port: int) -> None:
    """Passes if the server accepts a connection."""
    async with _connected(host, port):
        pass


async def redis(host: str, port: int) -> None:
    """Passes if the server answers PING; also if it first wants a password, as it is there."""
    line = await _ask(host, port, b"PING\r\n")
    if not line.startswith((b"+PONG", b"-NOAUTH", b"-NOPERM")):
        raise ProbeFailedError(f"answered PING with {_shown(line)}")


def http(path: str) -> Probe:
    """Passes if a GET of `path` is answered with a status below 400."""

    async def probe(host: str, port: int) -> None:
        shown = f"[{host}]" if ":" in host else host
        request = f"GET {path} HTTP/1.1\r\nHost: {shown}:{port}\r\nUser-Agent: datacenter\r\nConnection: close\r\n\r\n"
        words = (await _ask(host, port, request.encode())).split(None, 2)
        if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
            raise ProbeFailedError(f"answered GET {path} with {_shown(b' '.join(words))}")
        if int(words[1]) >= 400:
            raise ProbeFailedError(f"GET {path}: {_shown(b' '.join(words[1:]))}")

    return probe


def _command(words: str) -> Probe:
    try:
        command = shlex.split(words)
    except ValueError as error:
        raise BadOptionError(f"the command {words!r} cannot be read: {error}", "Quote it as a shell would.") from None
    if not command or shutil.which(command[0]) is None:
        raise BadOptionError(
            f"there is no command {command[0] if command else ''!r}", "Write --check 'command:/path/of/check --words'."
        )

    async def probe(host: str, port: int) -> None:
        """Passes if the command ends with status 0. It finds the address in its environment."""
        environment = {**os.environ, "DATACENTER_HOST": host, "DATACENTER_PORT": str(port)}
        nothing = asyncio.subprocess.DEVNULL
        try:
            child = await asyncio.create_subprocess_exec(
                *command, stdin=nothing, stdout=nothing, stderr=nothing, env=environment, start_new_session=True
            )
        except OSError as error:
            raise ProbeFailedError(f"{command[0]}: {error.strerror}") from None
        try:
            status = await child.wait()
        finally:
            with contextlib.suppress(ProcessLookupError):  # what it started as well
                os.killpg(child.pid, signal.SIGKILL)
            await asyncio.shield(child.wait())
        if status != 0:
            raise ProbeFailedError(f"{command[0]} ended with status {status}")

    return probe


async def _ask(host: str, port: int, question: bytes) -> bytes:
    """The first line of the answer."""
    async with _connected(host, port) as (reader, writer):
        writer.write(question)
        try:
            return (await reader.readuntil(b"\n")).rstrip()
        except asyncio.LimitOverrunError:
            raise ProbeFailedError("answered with no line") from None


def _shown(line: bytes) -> str:
    return repr(line[:100].decode(errors="replace"))
