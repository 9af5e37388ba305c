"""What the benchmark asks of a system, and which systems there are.

An adaptor is imported only when its system was chosen, so that a peer which is not installed hurts nobody else.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol, cast

from bench.loops import Loop

Command = Sequence[str]


class Client(Protocol):
    """A connected client."""

    async def call(self, payload: bytes) -> bytes:
        """Call `echo_payload` once; raises what the system raises."""
        ...


class System(Protocol):
    """One system under measurement."""

    def server_commands(self, port: int, loop: Loop) -> Sequence[Command]:
        """Give the processes that serve `echo_payload` on loopback `port`: the broker first, where there is one."""
        ...

    def connect(self, port: int) -> AbstractAsyncContextManager[Client]:
        """Open a client of `port`; raises what the system raises while its server is not there yet."""
        ...


ADAPTORS = {
    "raw pyzmq": "bench.systems.raw_pyzmq:RawPyzmq",
    "raw zmq.proxy": "bench.systems.raw_proxy:RawProxy",
    "nats-py": "bench.systems.nats_py:NatsRequestReply",
    "nats-py micro": "bench.systems.nats_py:NatsMicro",
    "grpc.aio": "bench.systems.grpc_aio:GrpcAio",
    "datacenter": "bench.systems.datacenter_bus:DatacenterDirect",
    "datacenter relay": "bench.systems.datacenter_bus:DatacenterRelay",
}


def load(name: str) -> System:
    """Make the adaptor of the system `name`; raises `ImportError` if the system is not installed."""
    module, _, attribute = ADAPTORS[name].partition(":")
    return cast(System, getattr(importlib.import_module(module), attribute)())


def python_server(module: str, port: int, loop: Loop, *arguments: str) -> Command:
    """Give the command that runs an adaptor's module as a server (see `bench.systems.server`)."""
    return [sys.executable, "-m", module, str(port), loop, *arguments]
