"""Asks single instances what they count: one short connection each, past every choice of an instance.

The question is a call of a method that no user can define (wire.STATISTICS); it is not counted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Final

import msgspec
import zmq

from datacenter import options, wire
from datacenter.calls import error_of
from datacenter.errors import DatacenterError, DeadlineError, ProtocolError
from datacenter.runtime import Runtime
from datacenter.sockets.loop import LoopSocket

#: the answer: {"pid": …, "endpoint": …, "statistics": {…}, "family": {…} or None}
Told = dict[str, Any]
_AT_ONCE: Final = 50  # a connection is four descriptors


async def ask_all(
    process: Runtime, service: str, endpoints: Iterable[str], *, deadline_s: float, insecure: bool = False
) -> dict[str, Told | DatacenterError]:
    """endpoint -> what it told, or why it did not. In the reactor's loop. Bounded by `deadline_s` for each."""
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one(endpoint: str) -> Told | DatacenterError:
        async with gate:
            try:
                return await ask(process, service, endpoint, deadline_s=deadline_s, insecure=insecure)
            except DatacenterError as error:
                return error

    unique = list(dict.fromkeys(endpoints))
    return dict(zip(unique, await asyncio.gather(*map(one, unique)), strict=True))


async def ask(process: Runtime, service: str, endpoint: str, *, deadline_s: float, insecure: bool = False) -> Told:
    """What one instance tells. Raises DeadlineError, AddressError, InsecureAddressError, ProtocolError, CallError."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[Told] = loop.create_future()

    def on_message(_routing_id: bytes, frame: bytes) -> None:
        if answer.done():
            return
        try:
            reply = wire.decode_reply(frame)
            if isinstance(reply, wire.Failure):
                raise error_of(reply)
            answer.set_result(msgspec.msgpack.decode(reply.body))
        except (DatacenterError, msgspec.MsgspecError) as error:
            answer.set_exception(error if isinstance(error, DatacenterError) else ProtocolError(str(error)))

    owned = process.context.socket(zmq.DEALER, owner=f"question to {endpoint}", receive_high_water=options.RECEIVE_ALL)
    try:
        owned.connect(endpoint, insecure=insecure, resolve=False)
    except BaseException:
        owned.close()
        raise
    stream = LoopSocket(owned, loop, on_message, bundled=True)
    try:
        call = wire.OutgoingCall(wire.FIRST_CALL_ID, service, wire.STATISTICS, int(deadline_s * 1000), (), {})
        stream.send(wire.encode(call))
        return await asyncio.wait_for(answer, deadline_s)
    except asyncio.TimeoutError:
        text = f"{endpoint} did not answer within {deadline_s:g} s"
        raise DeadlineError(text, "It hangs, or is on its way: `datacenter ls`.") from None
    finally:
        stream.close()
