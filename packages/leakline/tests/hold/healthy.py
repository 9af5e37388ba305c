"""Healthy programs under load, observed by `leakline PID`: none may be called leaking, nor be warned of.

    python healthy.py [PROGRAM …] [--for 60s] [--at-once 8] [--keep FOLDER]

Each is observed from its first request on, so that its warm-up is in it, under bursts of connections that come and go.
Programs that are missing are installed where root allows (Debian's packages). Exit code 1 for a false alarm, or for a
program that could not be judged: one that did not start, ended, or had no work.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import healthy_apps as apps
import healthy_servers as servers
from healthy_scene import Begin, Scene
from recorded_programs import SUBREAPER, leftovers

from leakline.durations import seconds_of


class Program(NamedTuple):
    """`needs`: what must be there; `packages`: Debian's, which bring it; `work`: its load in words."""

    begin: Begin
    work: str
    packages: str = ""
    needs: tuple[str, ...] = ()


CELERY = Path("/usr/lib/python3/dist-packages/celery")
SHORT = "bursts of connections"
PROGRAMS: dict[str, Program] = {
    "redis": Program(servers.redis, "redis-benchmark, bursts, saves", "redis-server redis-tools", ("redis-server",)),
    "nginx": Program(servers.nginx, "ab, bursts", "nginx-light apache2-utils", ("nginx", "ab")),
    "postgres": Program(
        servers.postgres, "pgbench, a connection each", "postgresql", (str(servers.POSTGRES / "pgbench"),)
    ),
    "zookeeper": Program(
        apps.zookeeper, "kazoo clients that come and go", "zookeeper default-jre-headless", ("java", str(apps.JAR))
    ),
    "memcached": Program(servers.memcached, SHORT, "memcached", ("memcached",)),
    "java": Program(apps.java, SHORT, "default-jdk-headless", ("javac",)),
    "node": Program(apps.node, f"{SHORT}, children", "nodejs", ("node",)),
    "chromium": Program(apps.chromium, "a page of fetches and frames", "chromium", ("chromium",)),
    "gunicorn": Program(apps.gunicorn, f"{SHORT}, children", "gunicorn", ("gunicorn",)),
    "uvicorn": Program(apps.uvicorn, SHORT, "uvicorn", ("uvicorn",)),
    "celery": Program(
        apps.celery, "batches of tasks", "python3-celery python3-redis redis-server", (str(CELERY), "redis-server")
    ),
    "pipeline": Program(apps.pipeline, "20 pipelines a second", "", ("bash",)),
    "asyncio": Program(apps.asyncio, SHORT),
    "threads": Program(apps.threads, SHORT),
    "sqlite": Program(apps.sqlite, SHORT),
    "datacenter": Program(apps.datacenter, "calls in bursts, clients that come and go"),
    "haproxy": Program(servers.haproxy, SHORT, "haproxy", ("haproxy",)),
    "mosquitto": Program(
        servers.mosquitto, "publishers, subscribers", "mosquitto mosquitto-clients", ("mosquitto_pub",)
    ),
    "sshd": Program(servers.sshd, "ssh-keyscan", "openssh-server", ("/usr/sbin/sshd",)),
    "rsync": Program(servers.rsync, "copies", "rsync", ("rsync",)),
    "dnsmasq": Program(servers.dnsmasq, "queries by UDP and TCP", "dnsmasq-base", ("dnsmasq",)),
    "etcd": Program(servers.etcd, "etcdctl put, get", "etcd-server etcd-client", ("etcd", "etcdctl")),
    "mariadb": Program(servers.mariadb, "mariadb-slap, reconnecting", "mariadb-server", ("mariadbd", "mariadb-slap")),
    "beanstalkd": Program(servers.beanstalkd, SHORT, "beanstalkd", ("beanstalkd",)),
    "squid": Program(servers.squid, f"{SHORT} to a server behind it", "squid", ("squid",)),
    "lighttpd": Program(servers.lighttpd, SHORT, "lighttpd", ("lighttpd",)),
    "apache": Program(servers.apache, "ab, bursts", "apache2-bin apache2-utils", ("apache2", "ab")),
}


@dataclass
class Result:
    """One observed process; `faults`: what makes the check fail."""

    name: str
    work: str
    report: dict[str, Any] = field(default_factory=dict)
    cpu_percent: float = 0.0
    faults: list[str] = field(default_factory=list)


def install(names: Sequence[str]) -> None:
    """What is missing, all at once, where root allows."""
    wanted = [PROGRAMS[name].packages for name in names if absent(name)]
    if wanted and os.geteuid() == 0 and shutil.which("apt-get"):
        words = ["apt-get", "install", "-qq", "-y", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300"]
        # RUNLEVEL: the programs are wanted, not services that start.
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
        print(f"installing {' '.join(wanted)}", file=sys.stderr)
        subprocess.run([*words, *" ".join(wanted).split()], stdout=subprocess.DEVNULL, env=environment)


def absent(name: str) -> list[str]:
    return [each for each in PROGRAMS[name].needs if not (shutil.which(each) or Path(each).exists())]


def observed(pids: dict[str, int], seconds: float, folder: Path) -> dict[str, subprocess.Popen[bytes]]:
    """A `leakline PID` for each process."""
    found = {}
    for name, pid in pids.items():
        with (folder / f"{name}.json").open("wb") as output, (folder / f"{name}.err").open("wb") as errors:
            words = [sys.executable, "-m", "leakline", str(pid), "--for", f"{seconds:g}s", "--json"]
            found[name] = subprocess.Popen(words, stdout=output, stderr=errors)
    return found


def judged(name: str, work: str, folder: Path, cpu_s: float) -> Result:
    """What leakline said of one process."""
    text = (folder / f"{name}.json").read_text()
    result = Result(name, work)
    if not text:
        result.faults.append(f"{name}: not observed: {(folder / f'{name}.err').read_text()[-300:]}")
        return result
    result.report = json.loads(text)
    result.cpu_percent = 100 * cpu_s / max(result.report["seconds"], 0.1)
    for finding in result.report["findings"]:
        if finding["severity"] != "note":
            result.faults.append(f"{name}: false alarm: {finding['id']}: {finding['title']}")
        if finding["id"] == "observe.ended":
            result.faults.append(f"{name}: it ended")
    return result


def batch(names: Sequence[str], seconds: float, root: Path) -> list[Result]:
    """Start these with their loads, observe them all at the same time, end them."""
    scenes: dict[str, Scene] = {}
    watching: dict[str, tuple[str, dict[str, subprocess.Popen[bytes]]]] = {}
    results: list[Result] = []
    try:
        for name in names:
            folder = root / name
            folder.mkdir(mode=0o755)
            scenes[name] = Scene(folder)
            try:
                pids = PROGRAMS[name].begin(scenes[name])
            except (RuntimeError, OSError, subprocess.SubprocessError) as error:
                results.append(Result(name, PROGRAMS[name].work, faults=[f"{name}: {error}; {scenes[name].said()}"]))
                continue
            watching[name] = (PROGRAMS[name].work, observed(pids, seconds, folder))
        for name, (work, observers) in watching.items():
            for process, observer in observers.items():
                _, status, usage = os.wait4(observer.pid, 0)
                observer.returncode = os.waitstatus_to_exitcode(status)
                results.append(judged(process, work, root / name, usage.ru_utime + usage.ru_stime))
            results[-1].faults += [f"{name}: {fault}" for fault in scenes[name].faults()]
    finally:
        for scene in scenes.values():
            scene.end()
    return results


def table(results: Sequence[Result]) -> str:
    """A line a process."""
    lines = [f"{'program':22}  {'load':42}  {'open':>5}  {'verdict':8}  {'CPU':>5}  findings"]
    for each in results:
        findings = ", ".join(finding["id"] for finding in each.report.get("findings", ())) or "–"
        verdict, total = each.report.get("verdict", "–"), each.report.get("total", 0)
        alarm = "" if not each.faults else "  <<<"
        lines.append(
            f"{each.name:22}  {each.work:42}  {total:>5}  {verdict:8}  {each.cpu_percent:4.1f}%  {findings}{alarm}"
        )
    return "\n".join(lines)


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("programs", nargs="*", metavar="PROGRAM", help=f"of {', '.join(PROGRAMS)}; default: all")
    parser.add_argument("--for", dest="duration", default="60s")
    parser.add_argument("--at-once", type=int, default=8)
    parser.add_argument("--keep", type=Path, help="leave reports and outputs there")
    options = parser.parse_args(words)
    names = options.programs or list(PROGRAMS)
    install(names)
    ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)
    began, results = time.monotonic(), []
    with tempfile.TemporaryDirectory(prefix="leakline-healthy-") as folder:
        os.chmod(folder, 0o755)  # for servers that give up root
        root = options.keep or Path(folder)
        there = [name for name in names if not absent(name)]
        for first in range(0, len(there), options.at_once):
            results += batch(there[first : first + options.at_once], seconds_of(options.duration), root)
        left = leftovers()
    print(table(results))
    missing = [f"{name}: left out: no {', '.join(absent(name))}" for name in names if name not in there]
    faults = [*missing, *(fault for each in results for fault in each.faults)]
    faults += [f"{len(left)} processes were left"] if left else []
    seconds = f"{options.duration} each, {time.monotonic() - began:.0f} s in all"
    print(f"{len(there)} programs, {len(results)} processes, {seconds}")
    print("\n".join(faults) or "holds")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
