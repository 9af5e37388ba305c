"""The services that the hold checks run: what a call can do, in a few methods."""

from __future__ import annotations

import asyncio
import os
import time

from datacenter import Service

shop = Service("shop")
never = Service("never")


@shop.method
async def pid() -> int:
    return os.getpid()


@shop.method
async def echo(value: bytes) -> bytes:
    return value


@shop.method
async def add(a: int, b: int = 1) -> int:
    return a + b


@shop.method(idempotent=True)
async def pid_again() -> int:
    return os.getpid()


@shop.method(idempotent=True)
async def echo_again(value: bytes) -> bytes:
    return value


@shop.method
async def wait(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "waited"


@shop.method
def block(seconds: float) -> str:
    time.sleep(seconds)
    return "blocked"


@shop.method
def boom() -> None:
    raise ValueError("deliberate")


@shop.method
def leave() -> None:
    raise SystemExit(7)


@shop.method
async def large(size: int) -> bytes:
    return bytes(size)


@shop.method
async def unencodable() -> object:
    return object()
