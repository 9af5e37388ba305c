"""What a context says of itself: how it is, and how its close ended."""

from __future__ import annotations

from dataclasses import dataclass

from datacenter.sockets.hub import HubStatistics


@dataclass(frozen=True)
class CloseReport:
    """How a close ended. `still_open` names what could not be closed by the deadline."""

    still_open: tuple[str, ...]
    seconds: float

    @property
    def clean(self) -> bool:
        """True if nothing is left."""
        return not self.still_open


@dataclass(frozen=True)
class ContextStatistics:
    """A context at one moment. `sockets` are open, `made` were made since its birth, `spare` descriptors are free in
    the process.
    """

    name: str
    sockets: int
    made: int
    max_sockets: int
    spare: int
    hub: HubStatistics
