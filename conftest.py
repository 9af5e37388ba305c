"""What every test begins with."""

from __future__ import annotations

import gc
import signal

# A shell without job control starts what it puts into the background (`make test &`) with SIGINT ignored, and so would
# be every process that a test starts to interrupt it.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Many tests collect garbage as they begin and end, so that what they left is closed. Of what pytest and the
    imports made nothing becomes garbage, and to look through it each time was nine tenths of a short test.
    """
    gc.collect()
    gc.freeze()
