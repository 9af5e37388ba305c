"""A network of one's own that can be cut: the loopback of a network namespace (needs root, or user namespaces)."""

from __future__ import annotations

import os
import subprocess
import sys

_INSIDE = "CASEBOOK_NETWORK"


def enter() -> None:
    """Starts this program again, as the same process, in a namespace whose loopback is up. Returns inside."""
    if os.environ.get(_INSIDE):
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        return
    how = ["--net"] if os.geteuid() == 0 else ["--net", "--map-root-user"]
    os.execvpe("unshare", ["unshare", *how, "--", sys.executable, *sys.argv], {**os.environ, _INSIDE: "1"})


def cut() -> None:
    """From now on nothing arrives anywhere, not even a FIN."""
    subprocess.run(["ip", "link", "set", "lo", "down"], check=True)
