"""`zmq.monitor-unread` and `zmq.socket-per-request`: uses of libzmq that end badly, before they do. Pure.

The facts behind these rules (libzmq 4.3.5):
- Each socket has an eventfd, its mailbox's. It is signalled when a pipe of the socket has something to read and the
  socket was asleep (pipe.cpp: activate_read), and stays so until the application uses the socket. A monitor's reader
  that nobody drains therefore has an eventfd with a count above 0 from the first event on.
- The reaper does nothing but close sockets: it wakes 1 to 3 times for each (measured: 1 for a socket that was never
  connected, 2.4 to 3 for a connected one), and sleeps otherwise.
"""

from __future__ import annotations

from leakline.facts import Finding, Frame, Origin, Recorded
from leakline.rules.observed import Observed
from leakline.rules.zeromq import MIN_BLOCKED_S, is_libzmq

MONITOR_UNREAD, PER_REQUEST = "zmq.monitor-unread", "zmq.socket-per-request"
MIN_UNREAD_S = 3.0
MIN_SOCKETS_PER_SECOND = 10.0  # fewer may be tasks or peers that come and go: casebook E, put right, makes 9
MIN_WAKES_PER_SECOND = 3 * MIN_SOCKETS_PER_SECOND
MIN_RECORDED_S = 3.0
COMING_AND_GOING_PER_SECOND = 2.0  # wakes
MIN_LOOKS = 10  # in which the reaper had moved: it is no single burst
_WAKES_A_SOCKET = 3


def monitor_unread(observed: Observed) -> list[Finding]:
    """A socket that has had something to read all the while, in a process that has no peer and tries to reconnect, or
    whose recording knows of a monitor.
    """
    unread = {number: seconds for number, seconds in observed.unread.items() if seconds >= MIN_UNREAD_S}
    busy = [each for each in observed.threads if each.role == "io" and each.wakes_per_second >= 1]
    monitored = _records_a_monitor(observed)
    # Where sockets come and go, one that waits for its next use is found signalled at each look, and was read between.
    lonely = not _has_peer(observed) and _reaper_wakes(observed) < COMING_AND_GOING_PER_SECOND
    if not unread or _is_blocked(observed) or not busy or not (monitored or lonely):
        return []
    wakes = sum(each.wakes_per_second for each in busy)
    return [
        Finding(
            id=MONITOR_UNREAD,
            severity="note",
            title=f"a ZeroMQ socket has had something to read for {max(unread.values()):.0f} s, and nobody reads it",
            count=len(unread),
            per_second=0.0,
            evidence={
                "eventfds that stay signalled": [f"descriptor {number}, {unread[number]:.0f} s" for number in unread],
                "wakes of the I/O thread per second": round(wakes, 1),
            },
            cause="Most likely the reader of a socket monitor that is not drained, while the socket tries to reconnect:"
            " each attempt puts 3 events in. When the pipe is full (1 000 + RCVHWM events, 2 000 by default) the I/O"
            " thread blocks, and no message of this context moves any more.",
            remedy="Read the monitor until after its socket is closed, with a mask of the events that are needed"
            " (`socket.monitor(address, zmq.EVENT_CONNECTED | zmq.EVENT_DISCONNECTED)`), or do without it.",
            harmless="It is an ordinary socket whose peer went away, and that the program will use later.",
            next=f"leakline {observed.pid} --for 60s",
            threshold=f"{MIN_UNREAD_S:.0f} s unread, while the I/O thread wakes once a second or more and no peer is"
            " connected (or a monitor was recorded)",
            confidence="likely" if monitored else "possible",
        )
    ]


def socket_per_request(observed: Observed) -> list[Finding]:
    """The reaper closes sockets all the time; by a recording, where there is one, that counts and names the lines."""
    if _is_blocked(observed):  # that finding has the rate, too
        return []
    wakes = _reaper_wakes(observed)
    origins = _that_make_sockets(observed.recorded)
    made = sum(origin.opened or 0 for origin in origins)
    if observed.recorded is not None and made:
        rate = made / observed.recorded.seconds
        if rate < MIN_SOCKETS_PER_SECOND or wakes < COMING_AND_GOING_PER_SECOND:
            return []
        how_many = f"{rate:.1f} per second"
        evidence: dict[str, object] = {"made": made, "recorded seconds": round(observed.recorded.seconds, 1)}
    elif wakes >= MIN_WAKES_PER_SECOND:
        how_many = f"{wakes / _WAKES_A_SOCKET:.1f} to {wakes:.1f} per second"
        evidence = {"seconds": round(observed.seconds, 1)}
    else:
        return []
    return [
        Finding(
            id=PER_REQUEST,
            severity="note",
            title=f"ZeroMQ sockets are made and closed all the time: {how_many}",
            count=made or sum(each.wakes for each in observed.threads if each.role == "reaper"),
            per_second=0.0,
            evidence={**evidence, "wakes of the reaper per second": round(wakes, 1)},
            origins=origins,
            cause="The reaper, which only closes sockets, wakes 1 to 3 times for each. A socket per request costs a"
            " handshake each time, and an eventfd that is free only when the I/O thread has let go: if that one ever"
            " blocks, each request leaks one.",
            remedy="Keep one socket per peer and use it for all requests; a DEALER with request ids instead of a REQ"
            " for each.",
            harmless="The rate is small, and the sockets belong to short tasks.",
            next=f"leakline attach {observed.pid} --for 10s",
            threshold=f"{MIN_WAKES_PER_SECOND:g} wakes per second, in {MIN_LOOKS} looks at least; by a recording"
            f" {MIN_SOCKETS_PER_SECOND:g} sockets per second",
            confidence="certain" if origins else "likely",
        )
    ]


def _that_make_sockets(recorded: Recorded | None) -> tuple[Origin, ...]:
    """Stacks through libzmq that come and go: threads of its own open none of their connections under a user's line."""
    if recorded is None or recorded.seconds < MIN_RECORDED_S:
        return ()
    return tuple(
        origin
        for origin in recorded.come_and_go
        if any(map(is_libzmq, origin.frames)) and not _of_a_library(origin.frames[origin.headline])
    )


def _of_a_library(frame: Frame) -> bool:
    return is_libzmq(frame) or frame.module.startswith(("/usr/lib", "/lib"))


def _reaper_wakes(observed: Observed) -> float:
    """Per second, if it goes on: no single burst."""
    reapers = [each for each in observed.threads if each.role == "reaper" and each.moved >= MIN_LOOKS]
    return sum(each.wakes_per_second for each in reapers)


def _is_blocked(observed: Observed) -> bool:
    return any(each.seconds >= MIN_BLOCKED_S for each in observed.threads)


def _has_peer(observed: Observed) -> bool:
    return any(
        each.socket is not None and each.socket.role in ("outgoing", "accepted") and each.socket.state == "ESTABLISHED"
        for seen in (observed.begin, observed.end)
        if seen is not None
        for each in seen.descriptors
    )


def _records_a_monitor(observed: Observed) -> bool:
    alive = observed.recorded.alive if observed.recorded is not None else ()
    return any(
        each.kind == "eventfd" and any("monitor" in frame.function.lower() for frame in each.origin.frames)
        for each in alive
    )
