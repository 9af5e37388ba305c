"""The options of a socket: one immutable set with named defaults, applied to each socket before it binds or connects.

Names carry their unit. Each default says which incident it answers; docs/options.md is made from here.
libzmq's own defaults (options.cpp:175-245) are those of a laboratory: no heartbeat, no size limit, no back-off, and a
close that waits for ever for messages nobody will fetch.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
import zmq

from datacenter.options import option

_Value = TypeVar("_Value", bool, int, float, str, bytes)


def _socket(name: str, default: _Value, unit: str, incident: str, why: str) -> _Value:
    return option("sockets", name, default, unit, incident, why)


# fmt: off
class SocketOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of one socket. Immutable: `replace(linger_ms=500)` makes a changed copy. May be shared by threads and
    over fork().
    """

    linger_ms: int = _socket(
        "linger_ms", 0, "ms", "H",
        "A closed socket does not wait for messages that nobody fetches (libzmq: for ever). What must arrive is "
        "acknowledged by the peer.")
    heartbeat_ivl_ms: int = _socket(
        "heartbeat_ivl_ms", 1000, "ms", "K",
        "libzmq's own ping on an idle connection. Finds a dead host or a blocked I/O thread; a hung Python worker "
        "still answers it.")
    heartbeat_timeout_ms: int = _socket(
        "heartbeat_timeout_ms", 3000, "ms", "K",
        "Three pings without an answer: the connection is closed, its descriptor freed, and the connecting side tries "
        "again.")
    heartbeat_ttl_ms: int = _socket(
        "heartbeat_ttl_ms", 3000, "ms", "K",
        "What we ask the peer to do: drop us when it has heard nothing for this long. Rounded down to 100 ms.")
    reconnect_min_ms: int = _socket(
        "reconnect_min_ms", 100, "ms", "A",
        "The first retry. Short, since most outages are restarts.")
    reconnect_max_ms: int = _socket(
        "reconnect_max_ms", 2000, "ms", "A",
        "The pause doubles up to this (libzmq: it does not grow): a long outage costs little, and its end is seen "
        "within 2 s.")
    handshake_timeout_ms: int = _socket(
        "handshake_timeout_ms", 5000, "ms", "K",
        "A peer that connects and never speaks is dropped after this (libzmq: 30 s of one descriptor each).")
    connect_timeout_ms: int = _socket(
        "connect_timeout_ms", 3000, "ms", "K",
        "A connect to a host that does not answer ends after this (kernel: about 2 minutes).")
    max_message_bytes: int = _socket(
        "max_message_bytes", 16 * 1024 * 1024, "bytes", "",
        "A larger message ends its connection instead of taking the memory (libzmq: no limit). -1 lifts it. Where "
        "calls travel a bundle of them (16 KiB) passes, whatever the limit of one call is.")
    send_high_water: int = _socket(
        "send_high_water", 1000, "messages", "",
        "Messages queued for one peer before send refuses: a slow peer is noticed, not stored. A message may be a "
        "bundle of small calls or replies, 16 KiB at most.")
    receive_high_water: int = _socket(
        "receive_high_water", 1000, "messages", "",
        "Messages queued from one peer before it is no longer read.")
    immediate: bool = _socket(
        "immediate", False, "", "",
        "True: queue only to peers whose handshake is complete, and drop the queue when they go. False: a message sent "
        "during an outage waits for its end.")
    router_mandatory: bool = _socket(
        "router_mandatory", False, "", "",
        "ROUTER only. True: a send to a vanished peer fails at once instead of being dropped silently.")
    router_handover: bool = _socket(
        "router_handover", False, "", "K",
        "ROUTER only. True: a peer that returns with its old routing id takes over from its half-open connection "
        "instead of being refused.")
    routing_id: bytes = _socket(
        "routing_id", b"", "bytes", "",
        "The name under which a ROUTER knows this socket; none: the ROUTER makes one up for each connection.")
    send_timeout_ms: int = _socket(
        "send_timeout_ms", -1, "ms", "C",
        "For sockets whose thread may block in send; -1 waits for ever. The hot path never blocks in send.")
    receive_timeout_ms: int = _socket(
        "receive_timeout_ms", -1, "ms", "C",
        "For sockets whose thread may block in recv; -1 waits for ever.")
    backlog: int = _socket(
        "backlog", 1024, "connections", "A",
        "Connections that wait to be accepted. libzmq's 100 overflows when all clients return at once after an outage.")
    tcp_keepalive: bool = _socket(
        "tcp_keepalive", True, "", "K",
        "The kernel's own check, for peers that do not speak ZMTP heartbeats.")
    tcp_keepalive_idle_s: int = _socket(
        "tcp_keepalive_idle_s", 60, "s", "K",
        "Idle time before the first probe (kernel: 2 hours).")
    tcp_keepalive_interval_s: int = _socket(
        "tcp_keepalive_interval_s", 10, "s", "K",
        "Pause between probes.")
    tcp_keepalive_count: int = _socket(
        "tcp_keepalive_count", 6, "probes", "K",
        "So many unanswered probes close the connection.")
    # fmt: on

    def replace(self, **changes: Any) -> SocketOptions:
        """A copy with `changes`. Raises TypeError for a name that is no option."""
        unknown = changes.keys() - set(self.__struct_fields__)
        if unknown:
            known = ", ".join(self.__struct_fields__)
            raise TypeError(f"no socket option {', '.join(sorted(unknown))}; there are {known}")
        return msgspec.structs.replace(self, **changes) if changes else self

    def apply(self, raw: zmq.Socket[bytes]) -> None:
        """Set them on a socket that is not bound nor connected yet. Raises zmq.ZMQError (EINVAL) for a value out of
        range.
        """
        set_option = raw.setsockopt
        for name, number in _NUMBERS.items():
            set_option(number, int(getattr(self, name)))
        if raw.getsockopt(zmq.TYPE) == zmq.ROUTER:
            # Write-only for other types: EINVAL.
            set_option(zmq.ROUTER_MANDATORY, int(self.router_mandatory))
            set_option(zmq.ROUTER_HANDOVER, int(self.router_handover))
        if self.routing_id:
            set_option(zmq.ROUTING_ID, self.routing_id)


_NUMBERS = {
    "linger_ms": zmq.LINGER,
    "heartbeat_ivl_ms": zmq.HEARTBEAT_IVL,
    "heartbeat_timeout_ms": zmq.HEARTBEAT_TIMEOUT,
    "heartbeat_ttl_ms": zmq.HEARTBEAT_TTL,
    "reconnect_min_ms": zmq.RECONNECT_IVL,
    "reconnect_max_ms": zmq.RECONNECT_IVL_MAX,
    "handshake_timeout_ms": zmq.HANDSHAKE_IVL,
    "connect_timeout_ms": zmq.CONNECT_TIMEOUT,
    "max_message_bytes": zmq.MAXMSGSIZE,
    "send_high_water": zmq.SNDHWM,
    "receive_high_water": zmq.RCVHWM,
    "immediate": zmq.IMMEDIATE,
    "send_timeout_ms": zmq.SNDTIMEO,
    "receive_timeout_ms": zmq.RCVTIMEO,
    "backlog": zmq.BACKLOG,
    "tcp_keepalive": zmq.TCP_KEEPALIVE,
    "tcp_keepalive_idle_s": zmq.TCP_KEEPALIVE_IDLE,
    "tcp_keepalive_interval_s": zmq.TCP_KEEPALIVE_INTVL,
    "tcp_keepalive_count": zmq.TCP_KEEPALIVE_CNT,
}
