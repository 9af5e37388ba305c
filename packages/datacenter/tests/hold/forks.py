"""Forks under load, half of them during an outage at 1 ms reconnect, in every way and with every end of the child: no
abort, no hang; parent's and peers' descriptors constant, each child's ledger empty and then its own.

    python forks.py --forks 500

A broker, a service and the forking process (fork_parent.py), which calls without pause. In the second half the service
is killed (SIGKILL) before every fork but one in ten, and comes back at the same port. A few children stay: they live on
while the parent closes its client and the service ends; what they hold then would keep ports and connections.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

from figures import distribution, finish, kinds, ledger_faults, wait_for

from datacenter.testing import Launcher, NotReadyError, Process, RunningService, free_port
from leakline import proc

PROGRAMS = Path(__file__).parent
SOURCE = PROGRAMS.parent / "sockets" / "fork_programs" / "forks.c"
KINDS = (
    "fork _exit", "fork sys.exit", "fork raise", "fork SIGKILL", "fork afresh _exit", "fork afresh sys.exit",
    "fork unclosed sys.exit", "fork unclosed _exit", "fork grandchild _exit", "fork daemon", "fork stay",
    "c _exit", "c sys.exit", "c afresh _exit", "c grandchild _exit", "c-only",
    "process plain", "process afresh", "process unclosed", "pool afresh", "executor afresh",
)  # fmt: skip
HANG_S = 20.0
COMPLAINTS = ("Assertion", "Aborted", "Fatal", "Traceback", "Exception ignored", "ResourceWarning", "FAULT")
STAYING = 5


class Scene:
    """The processes, and what was seen."""

    def __init__(self, launch: Launcher, keep: Path, library: Path) -> None:
        self.launch = launch
        self.broker = launch.broker(options=("--lease-s", "1"))
        self.port = free_port()
        self.service = self.serve()
        self.parent = launch.python("-W", "default", str(PROGRAMS / "fork_parent.py"), self.broker.address,
                                    str(library), str(keep))  # fmt: skip
        self.parent.wait_line("^ready")
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.ends: Counter[str] = Counter()
        self.staying: list[int] = []
        self.faults: list[str] = []

    def serve(self) -> RunningService:
        return self.launch.service("shop:shop", self.broker, listen=f"tcp://127.0.0.1:{self.port}")

    def processes(self) -> list[tuple[str, Process]]:
        return [("parent", self.parent), ("broker", self.broker), ("service", self.service)]

    def ask(self, line: str, pattern: str, deadline_s: float = HANG_S) -> str:
        """Tells the parent something; its answer."""
        seen = len(self.parent.lines)
        self.parent.tell(line)
        return self.parent.wait_line(pattern, deadline_s, after=seen)[1][0]

    def fork(self, kind: str) -> None:
        pid, status, seconds = self.ask(kind, r"^\d+ -?\d+ [\d.]+$").split()
        self.seconds[kind.split()[0]].append(float(seconds))
        self.ends[kind] += 1
        if "stay" in kind:
            self.staying.append(int(pid))
        if status != "0":
            self.faults.append(f"{kind}: status {status}\n{self.parent.errors[-1500:]}")


def plan(forks: int) -> list[str]:
    """Every kind equally often, in random order; of those that stay, a few."""
    found = [KINDS[n % len(KINDS)] for n in range(forks)]
    staying = [n for n, kind in enumerate(found) if "stay" in kind]
    for n in staying[STAYING:]:
        found[n] = "fork _exit"
    random.shuffle(found)
    return found


def calm_kinds(process: Process) -> dict[str, int]:
    return {kind: count for kind, count in kinds(process.pid).items() if kind in ("tcp", "eventfd", "epoll", "unix")}


def play(scene: Scene, forks: int) -> None:
    """The forks: one half beside a service that serves, the other in outages."""
    todo = plan(forks)
    for kind in todo[: forks // 2]:
        scene.fork(kind)
    began = time.monotonic()
    for number, kind in enumerate(todo[forks // 2 :]):
        if number % 10 == 9:
            scene.service = scene.serve()  # back for one fork
        elif scene.service.running:
            scene.service.kill()
        scene.fork(kind)
    print(f"{forks - forks // 2} forks in outages: {time.monotonic() - began:.0f} s")
    if not scene.service.running:
        scene.service = scene.serve()


def at_rest(scene: Scene, before: dict[str, dict[str, int]]) -> None:
    """Descriptors as before, the ledger exact, no message lost or doubled."""
    answer = scene.ask("calm", r"^calm (\d+) (.*)$")
    print(f"calls beside the forks: {answer}")
    if not answer.endswith(" []"):
        scene.faults.append(f"calls: {answer}")
    for name, process in scene.processes():
        end = time.monotonic() + 15
        while (now := calm_kinds(process)) != before[name] and time.monotonic() < end:
            time.sleep(0.05)
        print(f"{name:7} {before[name]} before, {now} after")
        if now != before[name]:
            scene.faults.append(f"{name}: {before[name]} before, {now} after")
        scene.faults += [f"{name}: {fault}" for fault in ledger_faults(process.pid) if "pipe:" not in fault]


def let_go(scene: Scene, seconds: float) -> None:
    """The parent closes and the service ends, while children stay: nothing may be left of their connections."""
    scene.ask("close", "^closed")
    service_port, broker_port = scene.port, int(scene.broker.address.rpartition(":")[2])
    living = [pid for pid in scene.staying if Path(f"/proc/{pid}").exists()]
    for pid in living:
        held = [row for row in calm_kinds_of(pid).items() if row[1]]
        if held:
            scene.faults.append(f"staying child {pid} holds {held}")
    # Both ends of the one connection that is the relay's stay.
    wait_for("the service sees the end of the parent's connection", lambda: len(connections(service_port)) <= 2, 10)
    scene.service.end()
    scene.service = scene.serve()  # at the same port, at once
    scene.broker.end()
    scene.launch.broker(broker_port)
    time.sleep(seconds)  # what a socket in CLOSE_WAIT does is to stay
    for port in (service_port, broker_port):
        for row in connections(port):
            if row[1] == "CLOSE_WAIT":
                scene.faults.append(f"port {port}: {row} after {seconds:.0f} s")
    print(f"{len(living)} children lived on; both ports were bound again at once; no CLOSE_WAIT after {seconds:.0f} s")


def calm_kinds_of(pid: int) -> dict[str, int]:
    return {kind: count for kind, count in proc.kinds(pid).items() if kind in ("tcp", "eventfd", "epoll")}


def connections(port: int) -> list[tuple[str, str]]:
    """(line, state) of this machine's TCP sockets with that local or remote port, but for listeners and TIME_WAIT."""
    states = {"01": "ESTABLISHED", "08": "CLOSE_WAIT", "04": "FIN_WAIT1", "05": "FIN_WAIT2", "09": "LAST_ACK"}
    found = []
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        ends = {int(words[1].split(":")[1], 16), int(words[2].split(":")[1], 16)}
        if port in ends and words[3] in states:
            found.append((" ".join(words[:4]), states[words[3]]))
    return found


def check(forks: int, wait_s: float) -> list[str]:
    with tempfile.TemporaryDirectory() as directory, Launcher(cwd=PROGRAMS) as launch:
        library, keep = Path(directory) / "libforks.so", Path(directory) / "keep"
        subprocess.run(["cc", "-Wall", "-Werror", "-shared", "-fPIC", "-o", str(library), str(SOURCE)], check=True)
        keep.touch()
        scene = Scene(launch, keep, library)
        scene.ask("calm", "^calm")
        before = {name: calm_kinds(process) for name, process in scene.processes()}
        scene.ask("load", "^loaded")
        try:
            play(scene, forks)
            at_rest(scene, before)
            let_go(scene, wait_s)
            scene.parent.tell("end")
            if status := scene.parent.wait(5):
                scene.faults.append(f"the parent ended with status {status}")
        except (NotReadyError, AssertionError) as error:
            scene.faults.append(str(error))
        said = [word for word in COMPLAINTS if word in scene.parent.errors]
        if said:
            scene.faults.append(f"parent and children said {said}:\n{scene.parent.errors[-3000:]}")
        for how, values in sorted(scene.seconds.items()):
            print(f"{how:9} {distribution(values)}")
        print(f"{sum(scene.ends.values())} forks of {len(scene.ends)} kinds, {len(scene.faults)} faults")
        return scene.faults


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--forks", type=int, default=500)
    parser.add_argument("--wait", type=float, default=60.0, help="seconds after which nothing may be in CLOSE_WAIT")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 30))
    options = parser.parse_args()
    random.seed(options.seed)
    print(f"seed {options.seed}", flush=True)
    finish(check(options.forks, options.wait))


if __name__ == "__main__":
    main()
