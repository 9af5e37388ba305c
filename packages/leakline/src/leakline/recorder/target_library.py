"""Where the library is that records a process from inside: preloaded, or loaded while it runs."""

from __future__ import annotations

from pathlib import Path

LIBRARY = Path(__file__).parent / "target" / "libleakline_recorder.so"
