"""The server side of an adaptor whose server is hand-written: `python -m bench.systems.X PORT LOOP`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine
from typing import Any, cast

from bench.loops import Loop, run


def serve_forever(serve: Callable[..., Coroutine[Any, Any, None]]) -> None:
    """Run `serve(port, *rest)` with the arguments of this process until a signal ends it."""
    port, loop, *rest = sys.argv[1:]
    run(serve(int(port), *rest), cast(Loop, loop))
