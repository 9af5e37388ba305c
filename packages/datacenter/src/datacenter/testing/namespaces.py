"""Two network namespaces with a link between them that can be cut without a FIN. Needs root and iproute2.

The link's addresses are of 127/8, which datacenter takes for loopback: so nothing has to be declared insecure. For
that, each namespace's own loopback is narrowed to 127.0.0.1 and `route_localnet` lets the rest of 127/8 travel over
the link.
"""

from __future__ import annotations

import os
import subprocess
from types import TracebackType

HERE, THERE = "127.1.0.1", "127.1.0.2"


class Namespaces:
    """A context manager: `here` and `there` are paths for `Launcher(network=…)`; `cut()` and `mend()` the link."""

    def __init__(self) -> None:
        self.names = (f"datacenter-{os.getpid()}-here", f"datacenter-{os.getpid()}-there")
        self.here, self.there = (f"/run/netns/{name}" for name in self.names)

    def __enter__(self) -> Namespaces:
        here, there = self.names
        try:
            for name in self.names:
                ip("netns", "add", name)
            ip("-n", here, "link", "add", "link0", "type", "veth", "peer", "name", "link0", "netns", there)
            for name, address in ((here, HERE), (there, THERE)):
                ip("-n", name, "link", "set", "lo", "up")
                ip("-n", name, "address", "delete", "127.0.0.1/8", "dev", "lo")
                ip("-n", name, "address", "add", "127.0.0.1/32", "dev", "lo")
                switch = "echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet"
                ip("netns", "exec", name, "sh", "-c", switch)
                ip("-n", name, "address", "add", f"{address}/24", "dev", "link0")
                ip("-n", name, "link", "set", "link0", "up")
        except BaseException:
            self.close()
            raise
        return self

    def cut(self) -> None:
        ip("-n", self.names[1], "link", "set", "link0", "down")

    def mend(self) -> None:
        ip("-n", self.names[1], "link", "set", "link0", "up")

    def close(self) -> None:
        for name in self.names:
            subprocess.run(["ip", "netns", "delete", name], stderr=subprocess.DEVNULL, check=False)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()


def ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"ip {' '.join(words)}: {done.stderr.strip()}")
