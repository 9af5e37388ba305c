"""What a relay answers itself, when no instance does: pure. The loops put the id in front (native/call_frame.h)."""

from __future__ import annotations

from datacenter import wire
from datacenter.broker.call_frame import ID_BIT, LEAST_FRAME
from datacenter.errors import DeadlineError, LostError


def lost(service: str, endpoint: str) -> bytes:
    """To a call that was handed to an instance which then went away: its connection ended, or it left the registry and
    its time to answer what it had was over.
    """
    return _tail(
        LostError.code,
        f"the instance of {service} at {endpoint} went away before it answered its relay",
        "It may have been executed. Declare the method idempotent to have such calls repeated.",
    )


def expired(service: str) -> bytes:
    """To a call whose deadline passed while it waited for an instance with room: it was not sent to any."""
    return _tail(
        DeadlineError.code,
        f"it was not sent: no instance of {service} that its relay can reach took it before its deadline",
        f"See who serves it: `datacenter ls`; start one more: `datacenter serve MODULE:{service}`.",
    )


def _tail(code: str, message: str, hint: str) -> bytes:
    return wire.encode(wire.Failure(ID_BIT, code, message, hint))[LEAST_FRAME:]
