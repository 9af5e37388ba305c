"""`datacenter demo`: incident A, played with real processes."""

from __future__ import annotations


def demo() -> None:
    """Play incident A with real processes."""
