"""The named limits of a gateway: `GatewayOptions`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from datacenter.checks import check, seconds, whole
from datacenter.options import option

CONNECT_S: Final = option(
    "gateway", "connect_s", 1.0, "s", "M",
    "An attempt to connect to a backend that takes longer has failed, and another one is tried: a firewall that drops "
    "packets refuses nothing.",
)  # fmt: skip
ATTEMPTS: Final = option(
    "gateway", "attempts", 3, "backends", "M", "So many backends are tried for one client; then it is turned away.",
)  # fmt: skip
SILENCE_S: Final = option(
    "gateway", "silence_s", 10.0, "s", "M",
    "A connection ends when what was sent on it is not acknowledged for so long, or when its peer's kernel answers no "
    "keep-alive: TCP alone takes 15 minutes, or two hours.",
)  # fmt: skip
HALF_CLOSED_S: Final = option(
    "gateway", "half_closed_s", 30.0, "s", "K",
    "One side has ended its half of a connection: so long may the other go on. Also the time to take what was sent.",
)  # fmt: skip
GATEWAY_DRAIN_S: Final = option(
    "gateway", "drain_s", 5.0, "s", "M",
    "So long may connections go on to a backend that has left the registry, and all of them when the gateway ends.",
)  # fmt: skip
MAX_CONNECTIONS: Final = option(
    "gateway", "max_connections", 0, "clients", "L",
    "Clients of one worker; further ones are turned away at once. 0: as many as its descriptors allow (two each).",
)  # fmt: skip
REQUEST_S: Final = option(
    "gateway", "request_s", 5.0, "s", "M",
    "Sharded Redis: a backend that answers nothing for so long while requests wait is given up, and they get an error.",
)  # fmt: skip
RETURN_S: Final = option(
    "gateway", "return_s", 3.0, "s", "M",
    "Sharded Redis: requests for a server that has just gone wait so long for its return, unsent; those after that get "
    "an error at once, until it is back. 0: none waits.",
)  # fmt: skip
MAX_PIPELINE: Final = option(
    "gateway", "max_pipeline", 1024, "requests", "",
    "Sharded Redis: requests of one client in flight; it is read no further until some are answered.",
)  # fmt: skip
MAX_REDIS_BYTES: Final = option(
    "gateway", "max_redis_bytes", 64 * 1024 * 1024, "bytes", "",
    "Sharded Redis: the largest request or reply. Both are held whole, to be passed on whole or not at all.",
)  # fmt: skip


@dataclass(frozen=True)
class GatewayOptions:
    """Seconds, counts, bytes. Raises BadOptionError for a value that cannot work."""

    connect_s: float = CONNECT_S
    attempts: int = ATTEMPTS
    silence_s: float = SILENCE_S
    half_closed_s: float = HALF_CLOSED_S
    drain_s: float = GATEWAY_DRAIN_S
    max_connections: int = MAX_CONNECTIONS
    request_s: float = REQUEST_S
    return_s: float = RETURN_S
    max_pipeline: int = MAX_PIPELINE
    max_redis_bytes: int = MAX_REDIS_BYTES

    def __post_init__(self) -> None:
        check(
            self,
            connect_s=seconds(above=0),
            attempts=whole(1, 100),
            silence_s=seconds(1.0, 86_400.0),
            half_closed_s=seconds(above=0),
            drain_s=seconds(),
            max_connections=whole(),
            request_s=seconds(above=0),
            return_s=seconds(),
            max_pipeline=whole(1),
            max_redis_bytes=whole(1024),
        )
