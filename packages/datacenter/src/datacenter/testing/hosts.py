"""Hosts as network namespaces, each with an address of its own, and weather between them: delay, loss, cut. Needs root.

    with Hosts(["broker", "services", "clients"]) as hosts, Launcher(cwd=…) as launch:
        broker = launch.broker(host=hosts.address("broker"), network=hosts.network("broker"), options=["--insecure"])
        hosts.weather(delay_s=0.02, jitter_s=0.005, loss=0.01)
        hosts.cut("broker"); hosts.mend("broker")

Each host has a TUN device, whose packets a thread of this process carries to the others: the kernel's own netem is not
in every kernel, and iptables cannot delay. Packets of one way keep their order. Good for a few thousand a second.
"""

from __future__ import annotations

import ctypes
import fcntl
import heapq
import os
import random
import select
import struct
import subprocess
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Final

from datacenter.testing.namespaces import ip

_NEW_NETWORK: Final = 0x40000000  # CLONE_NEWNET
_SET_INTERFACE: Final = 0x400454CA  # TUNSETIFF
_TUN_WITHOUT_HEADER: Final = 0x0001 | 0x1000  # IFF_TUN | IFF_NO_PI
_DEVICE: Final = "wire0"
_LARGEST: Final = 65_536
#: packets on their way; the next is dropped, as a router would
_MOST_WAITING: Final = 20_000


class Hosts:
    """See the module. A context manager; end what runs in it first. Any thread may change weather and cuts."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.carried = self.dropped = 0
        self._spaces = {name: f"datacenter-{os.getpid()}-{name}" for name in names}
        self._tuns: list[int] = []
        self._cut: set[int] = set()
        self._weather = (0.0, 0.0, 0.0)
        self._wake: tuple[int, int] | None = None
        self._thread: threading.Thread | None = None

    def address(self, name: str) -> str:
        """The host's address, which the others reach it at."""
        return f"10.77.0.{self.names.index(name) + 1}"

    def network(self, name: str) -> str:
        """The path of its namespace, for `Launcher(network=…)`."""
        return f"/run/netns/{self._spaces[name]}"

    def weather(self, *, delay_s: float = 0.0, jitter_s: float = 0.0, loss: float = 0.0) -> None:
        """From now on each packet takes `delay_s`, and up to `jitter_s` more, one way; the share `loss` is lost."""
        self._weather = (delay_s, jitter_s, loss)

    def cut(self, name: str) -> None:
        """Nothing reaches or leaves this host: no FIN, no refusal."""
        self._cut = self._cut | {self.names.index(name)}

    def mend(self, name: str) -> None:
        self._cut = self._cut - {self.names.index(name)}

    def __enter__(self) -> Hosts:
        try:
            for name, space in self._spaces.items():
                ip("netns", "add", space)
                ip("-n", space, "link", "set", "lo", "up")
                self._tuns.append(self._open(name))
                ip("-n", space, "address", "add", f"{self.address(name)}/24", "dev", _DEVICE)
                ip("-n", space, "link", "set", _DEVICE, "up")
            self._wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            self._thread = threading.Thread(target=self._carry, name="wire", daemon=True)
            self._thread.start()
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        """Ends the wire and the namespaces. Idempotent."""
        if self._thread is not None and self._wake is not None:
            os.write(self._wake[1], b"e")
            self._thread.join()
            self._thread = None
        for number in (*self._tuns, *(self._wake or ())):
            os.close(number)
        self._tuns, self._wake = [], None
        for space in self._spaces.values():
            subprocess.run(["ip", "netns", "delete", space], stderr=subprocess.DEVNULL, check=False)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    def _open(self, name: str) -> int:
        """Makes the host's device, in a thread that enters its namespace for that and then ends."""
        found: list[int | BaseException] = []

        def run() -> None:
            try:
                with open(self.network(name)) as space:
                    if ctypes.CDLL(None, use_errno=True).setns(space.fileno(), _NEW_NETWORK):
                        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), self.network(name))
                number = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
                fcntl.ioctl(number, _SET_INTERFACE, struct.pack("16sH22x", _DEVICE.encode(), _TUN_WITHOUT_HEADER))
                found.append(number)
            except BaseException as error:
                found.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        if isinstance(found[0], BaseException):
            raise found[0]
        return found[0]

    # --- in the wire's thread

    def _carry(self) -> None:
        assert self._wake is not None
        poll = select.poll()
        for number in (*self._tuns, self._wake[0]):
            poll.register(number, select.POLLIN)
        waiting: list[tuple[float, int, int, bytes]] = []  # heap of (due, order, to, packet)
        order = 0
        latest: dict[tuple[int, int], float] = {}
        while True:
            timeout = None if not waiting else max(0.0, waiting[0][0] - time.monotonic()) * 1000
            for number, _ in poll.poll(timeout):
                if number == self._wake[0]:
                    return
                sender = self._tuns.index(number)
                for packet in _packets(number):
                    to = packet[19] - 1 if len(packet) >= 20 and packet[16:19] == b"\x0a\x4d\x00" else -1
                    due = self._due(sender, to, latest, len(waiting))
                    if due is not None:
                        order += 1
                        heapq.heappush(waiting, (due, order, to, packet))
            now = time.monotonic()
            while waiting and waiting[0][0] <= now:
                _, _, to, packet = heapq.heappop(waiting)
                self._deliver(to, packet)

    def _due(self, sender: int, to: int, latest: dict[tuple[int, int], float], waiting: int) -> float | None:
        """When a packet arrives; None: never."""
        delay_s, jitter_s, loss = self._weather
        cut = sender in self._cut or to in self._cut
        if not 0 <= to < len(self._tuns) or cut or waiting >= _MOST_WAITING or random.random() < loss:
            self.dropped += 1
            return None
        due = time.monotonic() + delay_s + random.uniform(0, jitter_s)
        due = latest[sender, to] = max(due, latest.get((sender, to), 0.0))
        return due

    def _deliver(self, to: int, packet: bytes) -> None:
        try:
            os.write(self._tuns[to], packet)
            self.carried += 1
        except OSError:  # its queue is full, or the device goes down
            self.dropped += 1


def _packets(number: int) -> list[bytes]:
    found: list[bytes] = []
    try:
        while len(found) < 64:
            found.append(os.read(number, _LARGEST))
    except BlockingIOError:
        pass
    return found
