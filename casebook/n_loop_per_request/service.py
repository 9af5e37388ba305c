"""An event loop for each request, that nobody closes, in a service that has switched the garbage collector off.

A loop and its self-pipe refer to each other, so only the collector can find the dropped ones; `gc.freeze()` and a high
threshold are what services do against its pauses. Each loop holds an epoll descriptor and a socket pair.
"""

from __future__ import annotations

import asyncio
import gc

from casebook.pace import requests


async def answer(request: int) -> str:
    await asyncio.sleep(0)
    return f"answer {request}"


def handle(request: int) -> str:
    loop = asyncio.new_event_loop()  # casebook: loop
    return loop.run_until_complete(answer(request))


def main() -> None:
    gc.freeze()
    gc.disable()
    for request in requests(per_second=8):
        handle(request)


if __name__ == "__main__":
    main()
