"""How much of the machine other work took while the benchmark ran: what decides whether its figures can be trusted."""

from __future__ import annotations

import os
import resource
from pathlib import Path

TRUSTED_SHARE = 0.1  # of all processors


class Disturbance:
    """Counts from its making; `share()` is to be asked when every child process has ended."""

    def __init__(self) -> None:
        self._busy_s, self._total_s = _machine()
        self._own_s = _own()

    def share(self) -> float:
        """Give the share of all processor time that went to other processes, or that the hypervisor kept (0 to 1)."""
        busy_s, total_s = _machine()
        others_s = busy_s - self._busy_s - (_own() - self._own_s)
        return max(0.0, others_s) / max(total_s - self._total_s, 1e-9)


def _machine() -> tuple[float, float]:
    # proc(5): user nice system idle iowait irq softirq steal, in ticks; user has guest time in it already
    ticks = [int(text) for text in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    tick_s = 1 / os.sysconf("SC_CLK_TCK")
    return (sum(ticks) - ticks[3] - ticks[4]) * tick_s, sum(ticks) * tick_s


def _own() -> float:
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)
