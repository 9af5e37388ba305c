"""The pace of the casebook's programs: so many requests a second, as a server has them, for three minutes at most.

"ready" is printed after the first few, so that whoever looks sees a program at work and not its start.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

SECONDS = 180.0
WARM_UP = 5


def requests(per_second: float, *, ready: str = "ready", while_parent: bool = False) -> Iterator[int]:
    """0, 1, 2, …, one each 1/`per_second` s. `ready`: what is printed after `WARM_UP` of them; empty: nothing.

    `while_parent`: ends, too, when the process that started this one has ended (it may be killed at any moment).
    """
    began = time.monotonic()
    parent = os.getppid()
    number = 0
    while time.monotonic() - began < SECONDS and not (while_parent and os.getppid() != parent):
        yield number
        number += 1
        if number == WARM_UP and ready:
            print(ready, flush=True)
        time.sleep(max(0.0, began + number / per_second - time.monotonic()))
