"""The demo's service: `datacenter serve datacenter.demo.greeter:greeter`."""

from __future__ import annotations

from datacenter.service import Service

greeter = Service("greeter")


@greeter.method(idempotent=True)
async def hello(name: str) -> str:
    """Greet somebody."""
    return f"Hello, {name}!"
