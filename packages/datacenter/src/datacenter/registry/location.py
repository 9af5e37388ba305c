"""Where a broker keeps its registry, as it is typed: `memory`, or zookeeper://HOST:PORT,HOST:PORT/path. Pure, but for
getaddrinfo, once, where a host is a name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from datacenter.errors import AddressError, InsecureAddressError
from datacenter.sockets.addresses import for_connect

MEMORY: Final = "memory"
DEFAULT_PORT: Final = 2181
DEFAULT_PATH: Final = "/datacenter"
_SHAPE: Final = "A registry is `memory` or looks like zookeeper://127.0.0.1:2181,127.0.0.1:2182/path."
_PATH: Final = re.compile(r"(/[A-Za-z0-9_.-]+)+")


@dataclass(frozen=True)
class ZooKeeperLocation:
    """`hosts`: HOST:PORT,HOST:PORT with numeric hosts. `path`: of the registry's folder there, without a last '/'."""

    hosts: str
    path: str

    @property
    def text(self) -> str:
        return f"zookeeper://{self.hosts}{self.path}"


def parse(text: str, *, insecure: bool = False) -> ZooKeeperLocation | None:
    """None for `memory`. Raises AddressError; InsecureAddressError for a server beyond loopback without `insecure`."""
    if text == MEMORY:
        return None
    scheme, found, rest = text.partition("://")
    if not found or scheme != "zookeeper":
        raise AddressError(f"{text!r} names no registry.", _SHAPE)
    hosts, slash, path = rest.partition("/")
    path = f"/{path.rstrip('/')}" if slash and path.strip("/") else DEFAULT_PATH
    if not _PATH.fullmatch(path) or any(part in (".", "..", "zookeeper") for part in path.split("/")):
        raise AddressError(f"{text!r}: {path!r} cannot be the path of a registry.", _SHAPE)
    return ZooKeeperLocation(",".join(_server(text, host, insecure) for host in hosts.split(",")), path)


def of_family(text: str, *, insecure: bool) -> None:
    """Checks where a family's watcher is to connect. Raises AddressError, InsecureAddressError."""
    if parse(text, insecure=insecure) is None:
        raise AddressError(f"a registry in {text!r} would be the family's own, and nobody could ask it.", _SHAPE)


def _server(text: str, host: str, insecure: bool) -> str:
    bare = host.rpartition("]")[2] if host.startswith("[") else host
    try:
        address = for_connect(f"tcp://{host}" if ":" in bare else f"tcp://{host}:{DEFAULT_PORT}")
    except AddressError as error:
        raise AddressError(f"{text!r}: {error.message}", _SHAPE) from None
    if not address.local and not insecure:
        raise InsecureAddressError(
            f"ZooKeeper at {host} is reached over the network, and nothing protects what is said there.",
            "Add --insecure where the network is yours alone; who can write there decides where calls go.",
        )
    return address.text.removeprefix("tcp://")
