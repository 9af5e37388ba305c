"""From what a user types after `leakline holders` to what is looked for."""

from __future__ import annotations

import os
import re
import socket
import stat

import msgspec

from leakline.errors import LeaklineError, UsageError

_PORT = re.compile(r"(?P<host>.*):(?P<port>\d+)(?:/(?P<protocol>tcp|udp))?", re.ASCII)
_NO_HOST = ("", "*")
LOCALHOST = ("127.0.0.1", "::1")


class FileAsked(msgspec.Struct, frozen=True):
    """A path. `identities`: (device, inode) of what it names now, none if it does not exist. `below`: what lies under
    this folder counts too; `device`: what lies on this file system (of a mount point). `node`: type and number of a
    device.
    """

    typed: str
    path: str
    told: str
    identities: tuple[tuple[int, int], ...] = ()
    below: str | None = None
    device: int | None = None
    node: tuple[int, int] | None = None
    may_be_mapped: bool = False
    hint: str = ""


class UnixAsked(msgspec.Struct, frozen=True):
    """A UNIX socket: an abstract name as "@name", or a path with the (device, inode) of the socket file."""

    typed: str
    name: str
    told: str
    identity: tuple[int, int] | None = None


class PortAsked(msgspec.Struct, frozen=True):
    """A local port. No `hosts`: at whatever address."""

    typed: str
    port: int
    told: str
    protocols: tuple[str, ...] = ("tcp", "udp")
    hosts: tuple[str, ...] = ()


Asked = FileAsked | UnixAsked | PortAsked


def asked(typed: str) -> Asked:
    """`:8080`, `127.0.0.1:8080`, `:53/udp`, `@name`, or a path. A path that exists is a path, whatever it looks like.

    Raises UsageError, and LeaklineError for a path that this user may not look up.
    """
    if not typed:
        raise UsageError("an empty path names nothing", "give a path or a port: leakline holders :8080")
    status = _status(typed)
    match = _PORT.fullmatch(typed)
    if status is None and match is not None and "/" not in match["host"]:
        return _port(typed, match)
    if status is None and typed.startswith("@"):
        # Bytes that are no UTF-8 as tables of sockets have them here: escaped.
        name = os.fsencode(typed).decode(errors="backslashreplace")
        return UnixAsked(typed, name, f"the abstract UNIX socket {name}")
    if status is None and typed.startswith((":", "[")):
        raise _neither(typed)
    path = os.path.realpath(typed)
    if status is None:
        return FileAsked(
            typed,
            path,
            f"{path}, which does not exist any more",
            below=path,
            hint="give a path that exists, or a port as `:8080`, or an abstract UNIX socket as `@name`",
        )
    identity = (status.st_dev, status.st_ino)
    if stat.S_ISSOCK(status.st_mode):
        return UnixAsked(typed, path, f"the UNIX socket {path}", identity)
    if stat.S_ISDIR(status.st_mode):
        if os.path.ismount(path):
            told = f"the file system at {path}"
            return FileAsked(typed, path, told, (identity,), device=status.st_dev, may_be_mapped=True)
        return FileAsked(typed, path, f"the folder {path}", (identity,), below=path)
    kind = stat.S_IFMT(status.st_mode)
    node = (kind, status.st_rdev) if kind in (stat.S_IFCHR, stat.S_IFBLK) else None
    return FileAsked(typed, path, path, (identity,), node=node, may_be_mapped=kind == stat.S_IFREG)


def _status(typed: str) -> os.stat_result | None:
    """None: there is no such path."""
    try:
        return os.stat(typed)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise UsageError(f"a path cannot have a NUL in it: {typed!r}", "give a path or a port") from error
    except OSError as error:
        raise LeaklineError(f"{typed} could not be looked up: {error.strerror}", "look as root") from error


def _port(typed: str, match: re.Match[str]) -> PortAsked:
    port = int(match["port"])
    if not 0 < port < 65536:
        raise UsageError(f"{port} is no port", "ports are 1 to 65535: leakline holders :8080")
    protocols = (match["protocol"],) if match["protocol"] else ("tcp", "udp")
    host = match["host"].strip("[]")
    told = f"{match['protocol'] or ''} port {port}".strip()
    if host in _NO_HOST:
        return PortAsked(typed, port, told, protocols)
    hosts = LOCALHOST if host == "localhost" else (_numeric(host, typed),)
    return PortAsked(typed, port, f"{told} at {host}", protocols, hosts)


def _numeric(host: str, typed: str) -> str:
    """As the kernel's tables have it: looking a name up would ask a server, and take its time."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            return socket.inet_ntop(family, socket.inet_pton(family, host))
        except OSError:
            continue
    raise _neither(typed)


def _neither(typed: str) -> UsageError:
    return UsageError(
        f"`{typed}` is neither a path that exists nor a port at a numeric address",
        "write `:8080`, `127.0.0.1:8080`, `[::1]:8080` or `localhost:8080`",
    )
