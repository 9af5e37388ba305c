"""Real programs, plain and under `leakline run`: the same answers, nothing invented, nothing left behind.

    python recorded_programs.py [redis nginx postgres cpython] [--requests N]

Each program is started twice, plain and recorded with its children, and asked the same. Compared are its answers, its
status and the descriptors that it has open by /proc after the load; no recording may hold a wrong close, and no process
may be left.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from leakline.recorder import find_recording, read_recording

PACKAGES = {
    "redis": "redis-server redis-tools",
    "nginx": "nginx-light apache2-utils",
    "postgres": "postgresql",
    "cpython": "",
}
POSTGRES = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), Path("/usr/lib/postgresql/bin"))
# Their sockets of virtual machines wait for ever where the kernel has none, also without the recorder.
TESTS = ("-i", "*VSOCK*", "-i", "*Vsock*", "test_socket", "test_subprocess", "test_asyncio", "test_tempfile")
START_S = 60.0
END_S = 60.0
SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER: what a program leaves behind becomes a child of this process


@dataclass
class Run:
    """One start of a program, in a folder of its own."""

    folder: Path
    requests: int
    recorded: bool
    answers: dict[str, object] = field(default_factory=dict)
    recordings: int = 0
    faults: list[str] = field(default_factory=list)

    def command(self, *words: str) -> list[str]:
        if not self.recorded:
            return list(words)
        return [sys.executable, "-m", "leakline", "run", "--quiet", "--follow-children", "--", *words]

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        with (self.folder / "output").open("ab") as output:
            return subprocess.Popen(
                self.command(*words), stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=self.environment()
            )

    def environment(self) -> dict[str, str]:
        return {**os.environ, "LEAKLINE_DIR": str(self.folder / "recordings"), "LC_ALL": "C"}

    def ask(self, name: str, *words: str) -> str:
        """What a client says, which counts as an answer; its status does in any case."""
        done = subprocess.run(words, capture_output=True, text=True, timeout=300, env=self.environment())
        self.answers[f"status of {name}"] = done.returncode
        return done.stdout

    def look(self, process: subprocess.Popen[bytes], name: str) -> None:
        """The descriptors of the program and its children, and the wrong closes of those that are recorded now."""
        pids = family(process.pid)[1 if self.recorded else 0 :]  # without leakline itself
        self.answers[f"descriptors of {name}"] = sorted(sorted(descriptors(pid).items()) for pid in pids)
        for pid in pids if self.recorded else []:
            path = find_recording(pid)
            if path is None:
                self.faults.append(f"{pid} is not recorded")
            else:
                self.judge(path)

    def judge(self, path: Path) -> None:
        with open(path, "rb") as file:
            if not any(file.read(8)):  # its process was killed before the recording began
                return
        recording = read_recording(path)
        self.recordings += 1
        self.faults += [
            f"wrong close of {wrong.number} in {recording.command}: {wrong}" for wrong in recording.wrong_closes
        ]

    def end(self, process: subprocess.Popen[bytes], number: signal.Signals | None) -> None:
        """Sends the signal to the program (not to leakline) and waits for its end."""
        if number is not None:
            os.kill(family(process.pid)[1 if self.recorded else 0], number)
        self.answers["status"] = process.wait(END_S)
        for path in self.folder.glob(
            "recordings/*.leakline"
        ):  # but the first process's, which `run` reports and removes
            self.judge(path)
        said = (self.folder / "output").read_text(errors="replace")
        self.faults += re.findall(r"^warning: (recorded\..*|limit.exhausted.*)", said, re.MULTILINE)
        self.faults += [f"process {pid} was left" for pid in leftovers()]


def wait(condition: Callable[[], bool], seconds: float, process: subprocess.Popen[bytes]) -> None:
    """Until it holds. Raises RuntimeError where it does not in that time, or the program ends before."""
    limit = time.monotonic() + seconds
    while not condition():
        if process.poll() is not None or time.monotonic() > limit:
            raise RuntimeError(f"not ready; status {process.poll()}")
        time.sleep(0.02)


def family(pid: int) -> list[int]:
    """The process and all that descend from it, parents first."""
    found = [pid]
    for each in found:
        for children in Path(f"/proc/{each}/task").glob("*/children"):
            try:
                found += map(int, children.read_text().split())
            except OSError:  # it ended
                continue
    return found


def descriptors(pid: int) -> Counter[str]:
    """How many there are of each kind, without what differs between two starts."""
    kinds: Counter[str] = Counter()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = os.readlink(link)
        except FileNotFoundError:
            continue
        kinds[re.sub(r":\[\d+\]", "", target) if not target.startswith("/") else "file"] += 1
    return kinds


def leftovers() -> list[int]:
    """What the program left, 10 s after its end: all that became a child of this process. They are ended."""
    limit = time.monotonic() + 10.0
    while time.monotonic() < limit:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                time.sleep(0.02)
        except ChildProcessError:
            return []
    left = family(os.getpid())[1:]
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    return left


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def answers_at(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def connections(port: int) -> int:
    """That a server of this port still has open."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(line[1].endswith(f":{port:04X}") and line[3] in ("01", "08") for line in lines)


# --- the programs


def redis(run: Run) -> None:
    port = str(free_port())
    server = run.start("redis-server", "--port", port, "--save", "", "--dir", str(run.folder))
    wait(lambda: answers_at(int(port)), START_S, server)
    client = ("redis-cli", "-p", port)
    run.ask(
        "load", "redis-benchmark", "-p", port, "-q", "-n", str(run.requests), "-c", "50", "-t", "set,get,lpush,incr"
    )
    run.answers["length"] = run.ask("length", *client, "llen", "mylist")
    run.answers["counter"] = run.ask("counter", *client, "get", "counter:__rand_int__")
    run.ask("save", *client, "bgsave")  # forks
    wait(lambda: "rdb_bgsave_in_progress:0" in run.ask("saving", *client, "info", "persistence"), START_S, server)
    run.answers["saved"] = "rdb_last_bgsave_status:ok" in run.ask("saved", *client, "info", "persistence")
    wait(lambda: not connections(int(port)), START_S, server)
    run.look(server, "the server")
    run.end(server, signal.SIGTERM)


NGINX = """
daemon off; worker_processes 2; pid FOLDER/pid; error_log FOLDER/errors;
events { worker_connections 256; }
http { access_log off; client_body_temp_path FOLDER/1; proxy_temp_path FOLDER/2; fastcgi_temp_path FOLDER/3;
  uwsgi_temp_path FOLDER/4; scgi_temp_path FOLDER/5;
  server { listen 127.0.0.1:PORT; location / { root FOLDER/pages; } } }
"""


def nginx(run: Run) -> None:
    port = free_port()
    (run.folder / "pages").mkdir()
    (run.folder / "pages/index.html").write_text("a page\n" * 2000)
    settings = run.folder / "nginx.conf"
    settings.write_text(NGINX.replace("FOLDER", str(run.folder)).replace("PORT", str(port)))
    server = run.start("nginx", "-c", str(settings))
    wait(lambda: answers_at(port), START_S, server)
    page = f"http://127.0.0.1:{port}/index.html"
    for name, keep in (("load", []), ("kept connections", ["-k"])):
        said = run.ask(name, "ab", "-q", *keep, "-n", str(run.requests), "-c", "20", page)
        run.answers[name] = re.findall(r"(?:Complete|Failed) requests: +\d+|Document Length: .*", said)
    master = int((run.folder / "pid").read_text())
    before = family(master)[1:]
    os.kill(master, signal.SIGHUP)  # new workers, then the old ones end
    wait(lambda: len(now := family(master)[1:]) == 2 and not set(now) & set(before), START_S, server)
    with urllib.request.urlopen(page) as answer:
        run.answers["page"] = answer.read()
    wait(lambda: not connections(port), START_S, server)
    run.look(server, "master and workers")
    run.end(server, signal.SIGQUIT)


def postgres(run: Run) -> None:
    """Refuses to run as root, so setpriv comes first, and the recording goes on through its exec."""
    data, port = run.folder / "data", str(free_port())
    data.mkdir()
    user = []
    if os.geteuid() == 0:
        shutil.chown(data, "postgres", "postgres")
        user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
    made = run.start(*user, str(POSTGRES / "initdb"), "-D", str(data), "-A", "trust", "-U", "postgres", "-N")
    run.answers["status of initdb"] = made.wait(START_S)
    options = (
        "-c",
        "listen_addresses=127.0.0.1",
        "-c",
        "unix_socket_directories=",
        "-c",
        "fsync=off",
        "-c",
        "autovacuum=off",
    )
    server = run.start(*user, str(POSTGRES / "postgres"), "-D", str(data), "-p", port, *options)
    to = ("-h", "127.0.0.1", "-p", port, "-U", "postgres", "postgres")
    wait(lambda: not subprocess.run([POSTGRES / "pg_isready", "-q", *to[:-1]]).returncode, START_S, server)
    run.ask("filling", str(POSTGRES / "pgbench"), "-q", "-i", "-s", "1", *to)
    each = str(max(1, run.requests // 40))
    said = run.ask("load", str(POSTGRES / "pgbench"), "-n", "-c", "4", "-t", each, *to)
    run.ask("a connection each", str(POSTGRES / "pgbench"), "-n", "-S", "-C", "-c", "4", "-t", each, *to)
    run.answers["processed"] = re.findall(r"actually processed: (.*)", said)
    query = "select count(*), sum(abalance) = (select sum(bbalance) from pgbench_branches) from pgbench_accounts"
    run.answers["rows"] = run.ask("rows", str(POSTGRES / "psql"), "-A", "-t", "-c", query, *to)
    wait(lambda: not connections(int(port)), START_S, server)
    run.look(server, "the server")
    run.end(server, signal.SIGINT)  # without the clients: at once


def cpython(run: Run) -> None:
    """Its own tests, of the newest interpreter here that has them. They close wrong numbers on purpose."""
    results = run.folder / "results.xml"
    tests = run.start(interpreter(), "-m", "test", "--junit-xml", str(results), *TESTS)
    tests.wait(1800)
    for case in ElementTree.parse(results).iter("testcase"):
        outcome = next((each.tag for each in case if each.tag in ("failure", "error", "skipped")), "passed")
        run.answers[str(case.get("name"))] = outcome
    run.end(tests, None)
    allowed = ("kind='nothing-open'", "recorded.double-close", "limit.exhausted")  # as the kernel said: EBADF, EMFILE
    run.faults = [fault for fault in run.faults if not any(each in fault for each in allowed)]


def interpreter() -> str:
    versions = Path.home().glob(".pyenv/versions/3.*/lib/python3.*/test/test_asyncio")
    found = {tuple(map(int, re.findall(r"\d+", path.parts[-5]))): path.parents[3] for path in versions}
    usable = [version for version in found if version >= (3, 11)]  # has --junit-xml, and test names in it
    return str(found[max(usable)] / "bin/python3") if usable else ""


PROGRAMS: dict[str, Callable[[Run], None]] = {"redis": redis, "nginx": nginx, "postgres": postgres, "cpython": cpython}
NEEDED = {
    "redis": ("redis-server", "redis-cli", "redis-benchmark"),
    "nginx": ("nginx", "ab"),
    "postgres": (str(POSTGRES / "initdb"), str(POSTGRES / "pgbench"), "setpriv"),
}


def missing(name: str) -> str:
    """What keeps it from being run here; "": nothing."""
    if name == "cpython":
        return "" if interpreter() else "no interpreter of pyenv from 3.11 on that has its tests"
    absent = [program for program in NEEDED[name] if not shutil.which(program)]
    if absent and os.geteuid() == 0 and shutil.which("apt-get"):
        install = ["apt-get", "install", "-qq", "-y", "--no-install-recommends", *PACKAGES[name].split()]
        subprocess.run(install, stdout=subprocess.DEVNULL, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})
        absent = [program for program in NEEDED[name] if not shutil.which(program)]
    return f"no {', '.join(absent)} (apt-get install {PACKAGES[name]})" if absent else ""


def compare(name: str, requests: int) -> list[str]:
    """Runs the program twice; the faults."""
    runs = []
    for recorded in (False, True):
        with tempfile.TemporaryDirectory(prefix="leakline-hold-") as folder:
            os.chmod(folder, 0o755)  # for servers that give up root
            run = Run(Path(folder), requests, recorded)
            try:
                PROGRAMS[name](run)
            except (RuntimeError, OSError, subprocess.TimeoutExpired) as error:
                said = (run.folder / "output").read_text(errors="replace")[-2000:]
                run.faults.append(f"{error}; it said: {said}")
                for pid in reversed(family(os.getpid())[1:]):
                    os.kill(pid, signal.SIGKILL)
                leftovers()
            runs.append(run)
    plain, recorded_run = runs
    faults = plain.faults + recorded_run.faults
    for what in sorted({*plain.answers, *recorded_run.answers}):
        one, other = plain.answers.get(what, "none"), recorded_run.answers.get(what, "none")
        if one != other:
            faults.append(f"{what}: plain {one}, recorded {other}")
    if not recorded_run.recordings:
        faults.append("nothing was recorded")
    compared = f"{len(plain.answers)} answers compared, {recorded_run.recordings} recordings read"
    print(f"{name}: {compared}, {len(faults)} faults", flush=True)
    return faults


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("programs", nargs="*", default=[], help="of redis, nginx, postgres, cpython; default: all")
    parser.add_argument("--requests", type=int, default=20_000)
    options = parser.parse_args(words)
    ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)
    faults = []
    for name in options.programs or PROGRAMS:
        why_not = missing(name)
        if why_not:
            print(f"left out: {name}: {why_not}")
        else:
            faults += [f"{name}: {fault}" for fault in compare(name, options.requests)]
    print("\n".join(faults) or "holds")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
