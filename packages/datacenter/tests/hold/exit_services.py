"""Who holds services, brokers, relays and bare sockets when the process ends, as in exit_holders.py."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time

import zmq
from exit_holders import HOLDERS, holder, in_loop
from exiting import OPTIONS, Program, in_a_thread, keep

from datacenter import AsyncClient, Broker, DatacenterError, Server, Service
from datacenter.broker.relay import Relay
from datacenter.broker.relay_manager import RelayManager
from datacenter.sockets import OwnedSocket, SocketContext

__all__ = ["HOLDERS"]


def own_service() -> Service:
    service = Service(f"own-{os.getpid()}")

    @service.method
    async def wait(seconds: float) -> None:
        await asyncio.sleep(seconds)

    @service.method
    def block(seconds: float) -> None:
        time.sleep(seconds)

    return service


async def _serve(program: Program, broker: str) -> Server:
    """A server whose methods are running: one that waits, one that blocks a thread."""
    service = own_service()
    server = Server(service, broker=broker)
    server.start()
    if program.activity != "connecting":
        await server.registered()
        client = AsyncClient(broker, options=OPTIONS)
        keep.append(client)
        if program.activity != "idle":
            program.let_run(client.call(f"{service.name}.wait", 60, deadline_s=60))
            program.let_run(client.call(f"{service.name}.block", 60, deadline_s=60))
        await client.resolve(service.name)
    return server


@in_loop(None, extra_s=0.7)
async def server(program: Program) -> None:
    own = await _serve(program, program.broker)
    try:
        await program.leave_loop()
    finally:
        await own.close()


@in_loop("Server")
async def server_global(program: Program) -> None:
    keep.append(await _serve(program, program.broker))
    await program.leave_loop()


@in_loop(None, extra_s=0.7, alone=True)
async def broker(program: Program) -> None:
    async with Broker("tcp://127.0.0.1:0") as own:
        serving = await _serve(program, own.endpoint)
        try:
            await program.leave_loop()
        finally:
            await serving.close()


@in_loop("Broker", alone=True)
async def broker_global(program: Program) -> None:
    own = Broker("tcp://127.0.0.1:0")
    own.start()
    keep.extend([own, await _serve(program, own.endpoint)])
    await program.leave_loop()


@holder("SocketContext", alone=True)
def relay(program: Program) -> None:
    context = SocketContext("relays")
    one = Relay("shop", context)
    one.set_instances([program.broker, "tcp://127.0.0.1:9"])  # one that does not speak our protocol, one that is away
    keep.extend([context, one])
    program.leave()


@holder("SocketContext", alone=True)
def relay_manager(program: Program) -> None:
    context = SocketContext("relays")
    manager = RelayManager(context)
    for number in range(5):
        manager.get_or_create(f"shop-{number}").set_instances(["tcp://127.0.0.1:9"])
    keep.extend([context, manager])

    def churn() -> None:
        number = 0
        with contextlib.suppress(DatacenterError):
            while True:
                number += 1
                manager.get_or_create(f"churn-{number % 7}")
                manager.remove(f"churn-{(number + 3) % 7}")

    if program.activity != "idle":
        in_a_thread(churn)
    program.leave()


@holder("Client", extra_s=0.2)
def relay_beside_client(program: Program) -> None:
    """A relay in the context of the process's own runtime, as a broker has it."""
    client = program.client()
    keep.append(client)
    one = Relay("shop", client._runtime.context)
    one.set_instances(["tcp://127.0.0.1:9"])
    keep.append(one)
    program.leave()


# --- bare sockets


def restless(context: SocketContext) -> list[OwnedSocket]:
    """Sockets that look for a peer every millisecond."""
    made = [context.socket(zmq.DEALER, owner=f"dead {n}", reconnect_min_ms=1, reconnect_max_ms=0) for n in range(4)]
    for one in made:
        one.connect("tcp://127.0.0.1:9")
    return made


@holder("SocketContext", alone=True)
def sockets(program: Program) -> None:
    context = SocketContext("outage")
    keep.extend([context, *restless(context)])
    program.leave()


@holder("SocketContext", alone=True)
def socket_in_recv_of_daemon_thread(program: Program) -> None:
    context = SocketContext("outage")
    keep.append(context)

    def receive() -> None:
        made = restless(context)
        try:
            made[0].raw.recv()
        except zmq.ContextTerminated:
            for one in made:
                one.close()

    in_a_thread(receive)
    program.leave()


@holder("SocketContext", alone=True)
def sockets_made_and_closed(program: Program) -> None:
    """Sockets come and go in a thread while the context is closed."""
    context = SocketContext("outage")

    def work() -> None:
        with contextlib.suppress(DatacenterError):
            while True:
                with context.socket(zmq.DEALER, owner="query", reconnect_min_ms=1) as query:
                    query.connect("tcp://127.0.0.1:9")
                    time.sleep(0.001)

    in_a_thread(work)
    keep.append(context)
    program.leave()
