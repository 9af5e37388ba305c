"""Runs a coroutine on the event loop that a row of the table names."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Literal, TypeVar

Loop = Literal["uvloop", "asyncio"]
Result = TypeVar("Result")


def run(main: Coroutine[Any, Any, Result], loop: Loop) -> Result:
    """Run `main` to its end on a new event loop of the named implementation."""
    if loop == "asyncio":
        return asyncio.run(main)
    import uvloop

    return uvloop.run(main)
