"""Addresses: checked and made numeric before libzmq sees them. The only I/O is getaddrinfo, once, in the caller's
thread, and only where the caller lets it: not for an address that came from another process.

libzmq resolves a host name in its I/O thread, again at every reconnect: one slow DNS server stalls every socket of the
process (libzmq #2961). So it is only ever given numbers.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import dataclass

from datacenter.errors import AddressError

_SHAPE = "An address looks like tcp://127.0.0.1:7700, tcp://[::1]:7700, ipc:///run/name.sock or inproc://name."
_TCP = re.compile(r"(?P<host>\[[^\]]+\]|[^:\[\];/]+):(?P<port>\*|\d{1,5})")
_LONGEST_IPC_PATH = 107  # sizeof(sockaddr_un.sun_path) - 1


@dataclass(frozen=True)
class Address:
    """A checked address. `text` is what libzmq is given; `local` says that other machines cannot reach it."""

    text: str
    scheme: str
    local: bool
    ipv6: bool = False


def for_bind(text: str) -> Address:
    """Check an address to listen at. The port may be * or 0 (any free one), the host * (all interfaces), the ipc path *
    (a new one).

    Raises AddressError. May block in getaddrinfo if the host is a name.
    """
    return _parse(text, binding=True)


def for_connect(text: str, *, resolve: bool = True) -> Address:
    """Check an address to connect to. Raises AddressError, and without `resolve` for every host that is no number. Else
    it may block in getaddrinfo.
    """
    return _parse(text, binding=False, resolve=resolve)


def each_for_connect(text: str) -> str:
    """Check several addresses of the same thing, with commas between; returns them as libzmq is given them. Errors as
    for_connect, and it may block as long.
    """
    if not isinstance(text, str) or "," not in text:
        return for_connect(text).text
    return ",".join(dict.fromkeys(for_connect(part.strip()).text for part in text.split(",")))


def check_told(text: str) -> None:
    """Check an address that other processes are told: they must be able to connect to it as it stands, without asking a
    name server. Pure. Raises AddressError.
    """
    if for_connect(text, resolve=False).scheme == "inproc":
        raise AddressError(f"{text!r} is known in one process alone.", "Listen at tcp:// or ipc:// instead.")


def _parse(text: str, binding: bool, resolve: bool = True) -> Address:
    if not isinstance(text, str):
        raise AddressError(f"{text!r} is no address.", _SHAPE)
    scheme, found, rest = text.partition("://")
    if not found or not rest or any(sign.isspace() or not sign.isprintable() for sign in text):
        raise AddressError(f"{text!r} is no address.", _SHAPE)
    if scheme == "tcp":
        return _tcp(text, rest, binding, resolve)
    if scheme == "ipc":
        return _ipc(text, rest, binding)
    if scheme == "inproc":
        return Address(text, scheme, local=True)
    raise AddressError(f"{text!r}: there is no transport {scheme!r}.", _SHAPE)


def _ipc(text: str, path: str, binding: bool) -> Address:
    if len(path.encode()) > _LONGEST_IPC_PATH:
        raise AddressError(
            f"{text!r}: a Unix socket's path has at most {_LONGEST_IPC_PATH} bytes.", "Use a shorter folder."
        )
    if path == "*" and not binding:
        raise AddressError(f"{text!r} names no socket to connect to.", _SHAPE)
    return Address(text, "ipc", local=True)


def _tcp(text: str, rest: str, binding: bool, resolve: bool) -> Address:
    match = _TCP.fullmatch(rest)
    if match is None:
        raise AddressError(f"{text!r} has no host and port.", _SHAPE)
    host = match["host"].strip("[]")
    port = 0 if match["port"] == "*" else int(match["port"])
    if port > 65535:
        raise AddressError(f"{text!r}: the port is above 65535.", _SHAPE)
    if not binding and (port == 0 or host == "*"):
        raise AddressError(f"{text!r} names no one host and port to connect to.", _SHAPE)
    if host == "*":
        return Address(f"tcp://*:{port or '*'}", "tcp", local=False)
    number = _numeric(text, host, resolve)
    shown = f"[{number}]" if number.version == 6 else str(number)
    return Address(f"tcp://{shown}:{port or '*'}", "tcp", local=number.is_loopback, ipv6=number.version == 6)


def _numeric(text: str, host: str, resolve: bool) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        pass
    if not resolve:
        raise AddressError(
            f"{text!r}: the host {host!r} is no number, and is not looked up here.",
            "Whoever gives the address to others gives its number: tcp://127.0.0.1:7700, tcp://[::1]:7700.",
        )
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise AddressError(
            f"{text!r}: the host {host!r} is not known ({error}).", "Give its number, or check the spelling."
        ) from None
    # The older family first: what listens "at localhost" usually listens there.
    found.sort(key=lambda entry: entry[0] != socket.AF_INET)
    return ipaddress.ip_address(str(found[0][4][0]))
