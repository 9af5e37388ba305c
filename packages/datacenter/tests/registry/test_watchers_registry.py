"""Families whose watcher holds ZooKeeper itself: one connection to it, in the watcher, and none in anybody else."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
import redis

from datacenter import Client
from datacenter.testing import Ensemble, Launcher, family_of
from families import WORKERS, pid_of, registered, until
from gateway_site import GatewaySite, tcp_sockets

SHOP = """
import os
from datacenter import Service
shop = Service("shop")
@shop.method
async def pid() -> int:
    return os.getpid()
"""
SESSION_S = 6.0  # ZooKeeper keeps so long what a watcher had registered that was killed
WHO = {"supervisor": 0, "watcher": 1, "fork-server": 0, "worker-1": 0, "worker-2": 0}


def connections(supervisor: int, ensemble: Ensemble) -> dict[str, int]:
    """Process of the family -> how many connections to ZooKeeper it has."""
    port = ensemble.servers[0].address.rpartition(":")[2]
    pids = {"supervisor": supervisor, **{each.name: each.pid for each in family_of(supervisor)}}
    return {name: tcp_sockets(pid).count(f"to {port}") for name, pid in pids.items()}


def test_workers_stay_registered_although_their_watcher_is_killed(
    ensemble: Ensemble, location: str, tmp_path: Path
) -> None:
    (tmp_path / "shop.py").write_text(SHOP)
    with Launcher(cwd=tmp_path) as launch:
        broker = launch.broker(options=("--lease-s", "3", "--registry", location))
        family = launch.service("shop:shop", broker, options=("--workers", "2", "--registry", location), ready_s=60.0)
        workers = {pid_of(family, name) for name in WORKERS}
        with Client(broker.address) as client:
            until(lambda: registered(broker, launch) == workers, "both are registered")
            assert connections(family.pid, ensemble) == WHO
            former = pid_of(family, "watcher")
            os.kill(former, signal.SIGKILL)
            end = time.monotonic() + SESSION_S + 2.0
            while time.monotonic() < end:
                assert client.call("shop.pid", deadline_s=20) in workers
            until(lambda: registered(broker, launch) == workers, "both are registered, by another watcher")
            assert pid_of(family, "watcher") != former
            assert connections(family.pid, ensemble) == WHO
        family.signal(signal.SIGTERM)
        assert family.wait() == 0, family.errors
        until(lambda: not registered(broker, launch), "none is registered any more")


@pytest.mark.parametrize("balance", ["least-connections", "redis-keys"])
def test_a_gateway_with_no_broker_of_its_own(ensemble: Ensemble, location: str, tmp_path: Path, balance: str) -> None:
    with Launcher(cwd=tmp_path) as launch:
        site = GatewaySite(
            launch, balance, broker_options=("--lease-s", "3", "--registry", location), registry=location
        )
        assert connections(site.proxy.pid, ensemble) == WHO
        assert f"to {site.broker_port}" not in {each for pid in site.family().values() for each in tcp_sockets(pid)}
        former = site.family()["watcher"]
        os.kill(former, signal.SIGKILL)
        until(lambda: site.family().get("watcher", former) != former, "another watcher")
        until(lambda: connections(site.proxy.pid, ensemble) == WHO, "it has ZooKeeper")
        with redis.Redis(port=site.port, protocol=2) as client:
            assert client.get("a") is None
        assert site.proxy.end() == 0, site.proxy.errors


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("serve", "shop:shop", "--registry", "zookeeper://127.0.0.1:1/x"), "Add --workers N"),
        (("serve", "shop:shop", "-w", "1", "--registry", "nowhere"), "names no registry"),
        (("serve", "shop:shop", "-w", "1", "--registry", "zookeeper://192.0.2.1:2181/x"), "Add --insecure"),
        (("proxy", "-s", "a", "-l", "127.0.0.1:0", "--registry", "nowhere"), "names no registry"),
        (("proxy", "-s", "a", "-l", "127.0.0.1:0", "--registry", "memory"), "nobody could ask it"),
        (("serve", "shop:shop", "-w", "1", "--registry", "memory"), "nobody could ask it"),
    ],
)
def test_a_mistake_is_one_message(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    (tmp_path / "shop.py").write_text(SHOP)
    with Launcher(cwd=tmp_path) as launch:
        command = launch.command(*words)
        assert command.wait(60) == 2, command.errors
        assert said in command.errors
        assert "Traceback" not in command.errors
