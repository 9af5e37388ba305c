"""An application for uvicorn: reads a file in a thread, and sleeps a little now and then."""

import asyncio
from collections.abc import Awaitable, Callable
from itertools import count
from pathlib import Path
from typing import Any

NUMBER = count()


async def app(
    scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
) -> None:
    if scope["type"] != "http":
        return
    text = await asyncio.to_thread(Path("/etc/passwd").read_bytes)
    if next(NUMBER) % 7 == 0:
        await asyncio.sleep(0.05)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": text[:200]})
