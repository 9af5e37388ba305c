"""leakline: says whether a process leaks file descriptors, of which kind, how fast, until when, why, and what to
change.

From Python (docs/api.md): `snapshot(pid)`, `diagnose(pid)`, and `with no_leak():`, which raises `DescriptorLeakError`.
They are imported when they are first used, so that `import leakline` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from leakline.api import DescriptorLeakError as DescriptorLeakError
    from leakline.api import diagnose as diagnose
    from leakline.api import no_leak as no_leak
    from leakline.api import snapshot as snapshot

__version__ = "0.1.0"
__all__ = ["DescriptorLeakError", "diagnose", "no_leak", "snapshot"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    found = getattr(importlib.import_module("leakline.api"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
