"""The tests of relays share relay_peers.py, which the programs beside it import as well: by name, from this folder."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
