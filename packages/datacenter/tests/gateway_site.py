"""A gateway and what belongs to it: a broker, real Redis servers, their watchdog, `datacenter proxy` before them."""

from __future__ import annotations

from datacenter.testing import Launcher, Process, family_of
from datacenter.testing.ports import free_port
from leakline import proc
from leakline.errors import LeaklineError
from redis_servers import start_redis

READY_S = 40.0


class GatewaySite:
    """Two Redis servers behind a gateway, all ready. The launcher ends them."""

    def __init__(
        self,
        launcher: Launcher,
        balance: str,
        *,
        broker_options: tuple[str, ...] = ("--lease-s", "3"),
        redis_network: str = "",
        redis_host: str = "127.0.0.1",
        drain_s: float = 1.0,
        workers: int = 2,
        registry: str = "",
    ) -> None:
        self.registry = registry  # where the gateway's watcher asks, instead of the watchdog's broker
        self.launcher = launcher
        self.balance = balance
        self.broker = launcher.broker(options=broker_options)
        self.broker_port = int(self.broker.address.rpartition(":")[2])
        self.redises = [start_redis(launcher, network=redis_network, host=redis_host) for _ in range(2)]
        addresses = [word for _, port in self.redises for word in ("-a", f"{redis_host}:{port}")]
        fast = ("--interval-s", "0.1", "--gone-after", "3", "--back-after", "1")
        words = ("watchdog", "-b", self.broker.address, "-n", "redis", "-c", "redis", *fast, *addresses)
        self.watchdog = launcher.command(*words)
        for _, port in self.redises:
            self.watchdog.wait_line(f":{port} healthy$", READY_S)
        self.proxy, self.port = self.start_proxy(balance, workers, drain_s)

    def start_proxy(self, balance: str, workers: int, drain_s: float = 1.0) -> tuple[Process, int]:
        """One more gateway before the same servers; and its port."""
        port = free_port()
        where = ("--registry", self.registry) if self.registry else ("-b", self.broker.address)
        words = (*where, "-s", "redis", "-l", f"127.0.0.1:{port}", "--balance", balance)
        proxy = self.launcher.command("proxy", *words, "--drain-s", str(drain_s), "-w", str(workers))
        proxy.wait_line(f"^proxy for redis with {workers} workers at tcp://127.0.0.1:{port}$", READY_S)
        return proxy, port

    def family(self, proxy: Process | None = None) -> dict[str, int]:
        """What the gateway's processes are called -> pid, without the supervisor."""
        return {relative.name: relative.pid for relative in family_of((proxy or self.proxy).pid)}

    def everybody(self) -> dict[str, int]:
        """All that must keep its descriptors: name -> pid."""
        return {"supervisor": self.proxy.pid, "watchdog": self.watchdog.pid, "broker": self.broker.pid, **self.family()}


def tcp_sockets(pid: int) -> list[str]:
    """The TCP sockets of a process, as a person would name them: `listener`, `to 6379`, …; [] when it is gone."""
    try:
        snapshot = proc.snapshot(pid, threads=False, libraries=False)
    except LeaklineError:
        return []
    found = []
    for descriptor in snapshot.descriptors:
        if descriptor.socket is not None and descriptor.socket.protocol == "tcp":
            remote = descriptor.socket.remote
            found.append(descriptor.socket.role if remote is None or not remote.port else f"to {remote.port}")
    return sorted(found)


def tcp_states(pid: int) -> set[str]:
    """The states of a process's TCP sockets."""
    snapshot = proc.snapshot(pid, threads=False, libraries=False)
    return {each.socket.state for each in snapshot.descriptors if each.socket is not None and each.socket.state}
