"""The clock of leases: seconds that only grow, whatever becomes of the wall clock, and also while the machine sleeps.

CLOCK_MONOTONIC stands still while a laptop is suspended: an instance would wake up and believe in a lease that ended
hours ago.
"""

from __future__ import annotations

import time


def now() -> float:
    """Seconds since the machine was started. Comparable between the processes of one machine."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
