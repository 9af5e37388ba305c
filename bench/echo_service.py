"""The service that datacenter serves in the benchmark: `datacenter serve bench.echo_service:echo`."""

from __future__ import annotations

from datacenter import Service

echo = Service("echo")


@echo.method
async def echo_payload(payload: bytes) -> bytes:
    """Give the payload back."""
    return payload
