"""ZooKeeper and the Redis servers vanish behind a firewall that drops packets, for minutes, and come back.

    python firewall.py --minutes 3

The incident that the gateway grew out of: a master watched ZooKeeper and told its workers through pipes which backends
live; its workers, forked from it, had each kept a copy of its ZooKeeper connection. When the firewall closed, master
and servers gave their ends up; the copies stayed, in CLOSE_WAIT. Here, after the cut: no CLOSE_WAIT anywhere, one
connection to ZooKeeper in the watcher (and one in the watchdog's broker), none in any worker, as many descriptors as
before. nutcracker (twemproxy) stands beside it, before the same servers. Needs root.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from figures import finish, kinds, kinds_at_rest, wait_for, wait_for_kinds

from datacenter.testing import Ensemble, Launcher, Process
from datacenter.testing.namespaces import THERE, Namespaces
from datacenter.testing.ports import free_port
from gateway_site import GatewaySite, tcp_sockets, tcp_states

CLIENTS = 8
BACK_S = 60.0


def drop(names: tuple[str, str], on: bool) -> None:
    """A firewall between the two namespaces that drops everything, and refuses nothing."""
    verb = ["add", "dev", "link0", "root", "blackhole"] if on else ["delete", "dev", "link0", "root"]
    for name in names:
        subprocess.run(["ip", "netns", "exec", name, "tc", "qdisc", *verb], check=True)


class Peer:
    """One gateway under load: what its clients see, what its processes hold."""

    def __init__(self, name: str, launcher: Launcher, port: int, pids: dict[str, int]) -> None:
        self.name = name
        self.pids = pids
        self.load = launcher.python(str(Path(__file__).with_name("gateway_client.py")), str(port), str(CLIENTS))
        self.load.wait_line("^loading$", BACK_S)
        wait_for(f"{name} answers", lambda: self.told()["ends"].get("answered", 0) > 100, BACK_S)
        self.load_kinds = {each: kinds_at_rest(pid, rest_s=1.0) for each, pid in pids.items()}

    def told(self) -> dict[str, Any]:
        """What became of the requests since it was asked last."""
        said = len(self.load.lines)
        self.load.tell("next")
        _, found = self.load.wait_line(r"^\{.*\}$", BACK_S, after=said)
        answer: dict[str, Any] = json.loads(found[0])
        return answer


def start_nutcracker(launcher: Launcher, folder: Path, servers: list[int], host: str = THERE) -> tuple[Process, int]:
    """twemproxy before the same servers, with the same patience; and its port."""
    port, stats = free_port(), free_port()
    lines = "".join(f"   - {host}:{server}:1\n" for server in servers)
    (folder / "nutcracker.yml").write_text(
        f"redis:\n  listen: 127.0.0.1:{port}\n  redis: true\n  hash: fnv1a_64\n  distribution: ketama\n"
        f"  timeout: 5000\n  auto_eject_hosts: true\n  server_retry_timeout: 2000\n  server_failure_limit: 3\n"
        f"  servers:\n{lines}"
    )
    words = ("/usr/sbin/nutcracker", "-c", str(folder / "nutcracker.yml"), "-s", str(stats))
    return launcher.program(*words), port


def check(minutes: float, folder: Path, names: tuple[str, str]) -> list[str]:
    """In the namespace of brokers and gateways; ZooKeeper and the Redis servers are in the other one."""
    there = f"/run/netns/{names[1]}"
    with (
        Ensemble(folder / "zookeeper", hosts=[THERE], networks=[there]) as ensemble,
        Launcher(cwd=folder) as launcher,
    ):
        options = ("--lease-s", "3", "--registry", ensemble.url("/hold"))
        sites = [
            GatewaySite(
                launcher,
                balance,
                broker_options=options,
                redis_network=there,
                redis_host=THERE,
                registry=ensemble.url("/hold"),
            )
            for balance in ("least-connections", "redis-keys")
        ]
        peers = [Peer(f"proxy {site.balance}", launcher, site.port, site.everybody()) for site in sites]
        twemproxy, port = start_nutcracker(launcher, folder, [port for _, port in sites[1].redises])
        peers.append(Peer("nutcracker", launcher, port, {"nutcracker": twemproxy.pid}))
        faults = _cut(peers, minutes, names)
        for site in sites:
            faults += _connections(site, int(ensemble.servers[0].address.rpartition(":")[2]))
        return faults


def _cut(peers: list[Peer], minutes: float, names: tuple[str, str]) -> list[str]:
    """The cut, and what each peer made of it."""
    faults: list[str] = []
    told: dict[str, dict[str, dict[str, Any]]] = {}
    for when, seconds in (("warm-up", 2.0), ("before", 5.0), ("during", minutes * 60)):
        if when == "during":
            drop(names, True)
        time.sleep(seconds)  # of each time so much is looked at
        told[when] = {peer.name: peer.told() for peer in peers}
    drop(names, False)
    mended = time.monotonic()
    for peer in peers:
        wait_for(f"{peer.name} answers again", lambda peer=peer: _answers(peer), BACK_S)
        print(f"{peer.name}: answered again {time.monotonic() - mended:.1f} s after the end", flush=True)
    time.sleep(15.0)  # longer than any timer of the gateway's
    for peer in peers:
        peer.told()
    time.sleep(5.0)
    told["after"] = {peer.name: peer.told() for peer in peers}
    for peer in peers:
        for when in ("before", "during", "after"):
            _print(peer, when, told[when][peer.name])
        faults += _held(peer)
        ends = told["after"][peer.name]["ends"]
        if peer.name != "nutcracker" and ends.keys() != {"answered"}:
            faults.append(f"{peer.name}: after the cut not every request is answered: {ends}")
    return faults


def _answers(peer: Peer) -> bool:
    return bool(peer.told()["ends"].get("answered", 0))


def _print(peer: Peer, when: str, told: dict[str, Any]) -> None:
    ends = {what: count for what, count in told["ends"].items() if not what.startswith(" ")}
    print(f"{peer.name:<24} {when:<7} {ends}, longest from answer to answer {told['longest_s']} s")


def _held(peer: Peer) -> list[str]:
    """As many descriptors as before, and none half closed. How the kernel spreads clients over workers is its own."""
    faults = []
    for name, pid in peer.pids.items():
        wait_for_kinds(pid, peer.load_kinds[name], 5.0)
        if peer.name != "nutcracker" and "CLOSE_WAIT" in tcp_states(pid):
            faults.append(f"{peer.name}: {name} has connections in CLOSE_WAIT")
    before, after = Counter[str](), Counter[str]()
    for name, pid in peer.pids.items():
        who = "workers" if name.startswith("worker") else name
        before[who] += sum(peer.load_kinds[name].values())
        after[who] += sum(kinds(pid).values())
    for who, count in before.items():
        print(f"{peer.name:<24} {who:<12} descriptors before {count}, after {after[who]}")
    if peer.name != "nutcracker" and before != after:
        faults.append(f"{peer.name}: descriptors before {dict(before)}, after {dict(after)}")
    return faults


def _connections(site: GatewaySite, zookeeper: int) -> list[str]:
    """Who is connected to ZooKeeper, and who to the broker."""
    faults = []
    for name, pid in site.everybody().items():
        found = tcp_sockets(pid)
        to_zookeeper, to_broker = found.count(f"to {zookeeper}"), found.count(f"to {site.broker_port}")
        print(f"{site.balance}: {name} has {to_zookeeper} connections to ZooKeeper, {to_broker} to the broker")
        if to_zookeeper != (name in ("broker", "watcher")) or to_broker != (name == "watchdog"):
            faults.append(f"{site.balance}: {name} has {to_zookeeper} to ZooKeeper and {to_broker} to the broker")
    return faults


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--inside", nargs=2, metavar="NAMESPACE", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        with tempfile.TemporaryDirectory() as folder:
            finish(check(options.minutes, Path(folder), tuple(options.inside)))
    with Namespaces() as net:
        words = (sys.executable, __file__, "--minutes", str(options.minutes), "--inside", *net.names)
        sys.exit(subprocess.run(["ip", "netns", "exec", net.names[0], *words], check=False).returncode)


if __name__ == "__main__":
    main()
