"""A service that writes down every execution before it begins: a line `CALL PID` in the file $EXECUTIONS."""

from __future__ import annotations

import asyncio
import os

from datacenter import Service

accounted = Service("accounted")
# O_APPEND: whole lines, whatever other instances write; written before the work, so kill -9 hides none.
_log = os.open(os.environ["EXECUTIONS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


@accounted.method
async def once(call: str, nap_s: float) -> int:
    return await _execute(call, nap_s)


@accounted.method(idempotent=True)
async def again(call: str, nap_s: float) -> int:
    return await _execute(call, nap_s)


async def _execute(call: str, nap_s: float) -> int:
    os.write(_log, f"{call} {os.getpid()}\n".encode())
    if nap_s:
        await asyncio.sleep(nap_s)
    return os.getpid()
