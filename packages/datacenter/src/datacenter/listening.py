"""Where a service listens: at the address given, or at a free port that no client can connect to by accident."""

from __future__ import annotations

import random

from datacenter.errors import AddressError, AddressInUseError
from datacenter.sockets.addresses import check_told, for_connect
from datacenter.sockets.owned import OwnedSocket


def bind_listener(owned: OwnedSocket, listen: str, *, insecure: bool = False) -> str:
    """Binds to `listen`; with port 0 or none, to a free port below the ephemeral range.

    A client that keeps connecting to a dead port inside that range can end up connected to itself (libzmq #4599).
    """
    host, colon, port = str(listen).rpartition(":")
    if not isinstance(listen, str) or not listen.startswith("tcp://") or (colon and port not in ("0", "*", "")):
        return owned.bind(listen, insecure=insecure)
    low, high = 10_000, _ephemeral_start()
    for _ in range(64):
        try:
            return owned.bind(f"{host}:{random.randrange(low, high)}", insecure=insecure)
        except AddressInUseError:
            continue
    return owned.bind(listen, insecure=insecure)


def is_wildcard(endpoint: str) -> bool:
    """Whether clients could not connect to this address, because it stands for all of a host's."""
    return endpoint.startswith(("tcp://0.0.0.0:", "tcp://*:", "tcp://[::]:"))


def reached_by_way_of(endpoint: str, other: str) -> str:
    """Where `endpoint` is for a process that is connected to `other`, a numeric address of the same host: at the host
    of `other`, if `endpoint` stands for all of its host's addresses; else where it says. Pure.
    """
    if not is_wildcard(endpoint) or not other.startswith("tcp://"):
        return endpoint
    return f"{other.rpartition(':')[0]}:{endpoint.rpartition(':')[2]}"


def checked_advertise(text: str) -> str:
    """The address that clients are told, in numbers. Raises AddressError for one that nobody can connect to. May block
    in getaddrinfo if the host is a name.
    """
    endpoint = for_connect(text).text
    check_told(endpoint)
    if is_wildcard(endpoint):
        raise AddressError(
            f"clients cannot connect to {endpoint}", "Advertise an address of this host: --advertise tcp://HOST:PORT."
        )
    return endpoint


def _ephemeral_start() -> int:
    try:
        with open("/proc/sys/net/ipv4/ip_local_port_range") as file:
            return max(10_100, int(file.read().split()[0]))
    except (OSError, ValueError, IndexError):
        return 32_768
