"""The typed message that every peer sends, so that all of them encode, decode and validate the same thing.

A call carries one argument, `payload`, in a msgpack array; its result is a msgpack binary. What a system needs around
that (subject, method path, call identity) is its own business and stays in its adaptor.
"""

from __future__ import annotations

import msgspec

SERVICE = "echo"
METHOD = "echo_payload"
DEADLINE_S = 5.0
"""Of one call, for every system that has deadlines."""


class Arguments(msgspec.Struct, array_like=True, gc=False):
    """Arguments of `echo_payload`."""

    payload: bytes


encode = msgspec.msgpack.Encoder().encode
decode_arguments = msgspec.msgpack.Decoder(Arguments).decode
decode_result = msgspec.msgpack.Decoder(bytes).decode
