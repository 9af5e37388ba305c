"""`tcp.half-open` and `tcp.time-wait`: connections whose peer is gone without a word, and those that are only waiting
to be forgotten. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator

from leakline.facts import Descriptor, Finding, Snapshot, TimeWait
from leakline.figures import grouped
from leakline.rules.grouping import address, peer_of, top
from leakline.rules.observed import Observed
from leakline.rules.sorts import HALF_OPEN, MIN_UNANSWERED, forecast, growing_by, more, rate_of, sort_in

TIME_WAIT = "tcp.time-wait"
MIN_HALF_OPEN = 10  # for a warning: a few are every network's daily life
MIN_TIME_WAIT = 500
_NEARLY_ALL = 0.8  # of the ports that the kernel gives to clients, to one remote


def half_open(observed: Observed) -> list[Finding]:
    """Connections on which this side sends again and again, and nothing comes back."""
    silent = _of_sort(observed, HALF_OPEN)
    if not silent:
        return []
    growth = growing_by(observed, HALF_OPEN)
    most = max(each.socket.unanswered for each in silent if each.socket is not None)
    return [
        Finding(
            id=HALF_OPEN,
            severity="leak" if growth else "warning" if len(silent) >= MIN_HALF_OPEN else "note",
            title=f"{len(silent)} TCP connections have a peer that does not answer{more(growth)}",
            count=len(silent),
            per_second=rate_of(growth),
            evidence={
                "peers": top(peer_of(each) for each in silent),
                "unanswered in a row": most,
                "unsent_bytes": sum(each.socket.send_queue or 0 for each in silent if each.socket is not None),
                **forecast(observed, growth),
            },
            cause="The peer vanished without a FIN or RST (power, network, a firewall that forgot the connection), or"
            " is stopped. The kernel gives up after about 15 minutes of retransmission (tcp_retries2), and never on a"
            " connection on which nothing is sent.",
            remedy="A heartbeat with a deadline in the protocol; else TCP_USER_TIMEOUT, and SO_KEEPALIVE with"
            " TCP_KEEPIDLE=30, TCP_KEEPINTVL=10, TCP_KEEPCNT=3. libzmq: ZMQ_HEARTBEAT_IVL and _TIMEOUT.",
            harmless="A short outage of the network: look again in a minute.",
            next=f"leakline ls {observed.pid} --kind tcp",
            threshold=f"{MIN_UNANSWERED} transmissions in a row without an answer; a warning from {MIN_HALF_OPEN}"
            " connections",
            confidence="certain",
        )
    ]


def time_wait(observed: Observed) -> list[Finding]:
    """Many connections in TIME_WAIT that were this process's: they hold no descriptor, and may use up ports."""
    seen = observed.closely.time_wait
    if seen is None:
        return []
    own = _closes_connections_to(observed, seen)
    remotes = {remote: count for remote, count in seen.remotes.items() if remote in own}
    count = sum(seen.listeners.values()) + sum(remotes.values())
    if count < MIN_TIME_WAIT:
        return []
    most = max(remotes.values(), default=0)
    used_up = bool(seen.ports) and most >= _NEARLY_ALL * seen.ports
    return [
        Finding(
            id=TIME_WAIT,
            severity="warning" if used_up else "note",
            title=f"{grouped(count)} connections of this process's are in TIME_WAIT: they hold no descriptor",
            count=count,
            per_second=0.0,
            evidence={
                **({"of its listeners": seen.listeners} if seen.listeners else {}),
                **({"to": remotes} if remotes else {}),
                "in_this_network_namespace": seen.total,
                "ports_for_clients": seen.ports,
            },
            cause="Whoever closes a connection first keeps its addresses for 60 s, so that late packets harm no new"
            " one. They belong to the kernel, to no process: `ulimit -n` has nothing to do with them. Many mean a"
            " connection per request.",
            remedy="Keep connections: one client per process, HTTP keep-alive, a pool. Let the side that has fewer"
            " peers close last. net.ipv4.tcp_tw_reuse=1 helps clients that run out of ports; do not shorten FIN_WAIT.",
            harmless="As long as connect() does not fail with EADDRNOTAVAIL: there are so many ports to each remote.",
            next="ss -tan state time-wait",
            threshold=f"{MIN_TIME_WAIT}; a warning from {_NEARLY_ALL:.0%} of the ports to one remote",
            confidence="certain",
        )
    ]


def _closes_connections_to(observed: Observed, seen: TimeWait) -> set[str]:
    """Remotes of which it is this process that closes connections: it has or had one to it, and sockets of its own come
    and go as often as it takes. The table of TIME_WAIT names no process, and whoever keeps one connection to a remote,
    or made it meanwhile, has nothing to do with the hundreds that another process closed to the same one.
    """
    if not seen.come_and_go:
        return set()
    return {
        remote for snapshot in (observed.begin, observed.end) if snapshot is not None for remote in _outgoing(snapshot)
    }


def _outgoing(seen: Snapshot) -> Iterator[str]:
    """Remotes of the connections that it made itself."""
    for each in seen.descriptors:
        if each.socket is not None and each.socket.role == "outgoing" and each.socket.remote:
            yield address(each.socket.remote)


def _of_sort(observed: Observed, sort: str) -> list[Descriptor]:
    return [each for each in (observed.end.descriptors if observed.end else ()) if sort_in(observed, each) == sort]
