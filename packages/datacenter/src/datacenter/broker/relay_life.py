"""When a relay ends: a pure decision from two facts that should agree, the leases of its service and its connections.

It ends when for `relay_idle_s` no lease was live *and* no instance was connected. Either alone keeps it: a lease
without a connection is an instance that the relay cannot reach (yet); a connection without a lease is an instance that
drains, or one that the broker has lost sight of. If they disagree for longer than `disagreement_s`, that is said once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from datacenter.options import option

RELAY_IDLE_S: Final = option(
    "relay", "relay_idle_s", 30.0, "s", "G",
    "A relay ends when for so long no lease was live and no instance connected. Long beside a lease, so that a restart "
    "of the last instance does not cost the relay; short beside a day.",
)  # fmt: skip
DISAGREEMENT_S: Final = option(
    "relay", "disagreement_s", 10.0, "s", "G",
    "Leases without a connection, or connections without a lease, are logged after so long, once. A lease is given "
    "before the connection is made, and ends up to a lease after it: longer than both is no coincidence.",
)  # fmt: skip


@dataclass(frozen=True)
class Decision:
    """`end`: end the relay now. `disagreement`: what to log, once, or ""."""

    end: bool = False
    disagreement: str = ""


class RelayLife:
    """One relay's. Not thread-safe. Times in seconds on any clock that never goes back; `now` starts the idle time."""

    def __init__(
        self, now: float, *, relay_idle_s: float = RELAY_IDLE_S, disagreement_s: float = DISAGREEMENT_S
    ) -> None:
        self.relay_idle_s = relay_idle_s
        self.disagreement_s = disagreement_s
        self._idle_since: float | None = now
        self._disagree_since: float | None = None
        self._told = False

    def decide(self, now: float, *, leases: int, connections: int) -> Decision:
        """From how many leases are live and how many instances are connected."""
        if leases or connections:
            self._idle_since = None
        elif self._idle_since is None:
            self._idle_since = now
        if bool(leases) == bool(connections):
            self._disagree_since, self._told = None, False
        elif self._disagree_since is None:
            self._disagree_since = now
        return Decision(
            end=self._idle_since is not None and now - self._idle_since >= self.relay_idle_s,
            disagreement=self._disagreement(now, leases, connections),
        )

    def _disagreement(self, now: float, leases: int, connections: int) -> str:
        if self._told or self._disagree_since is None or now - self._disagree_since < self.disagreement_s:
            return ""
        self._told = True
        for_s = f"for {now - self._disagree_since:.0f} s"
        if leases:
            return f"{leases} live leases and no connected instance {for_s}: the broker cannot reach their endpoints"
        return f"{connections} connected instances and no live lease {for_s}: they drain, or do not renew their leases"
