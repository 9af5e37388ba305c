"""leakline's snapshot beside `lsof -nP -p`: a process with nearly 20 000 descriptors of all kinds, interleaved.

`python -m bench.lsof` prints medians and the ratio, and exits 1 if leakline takes more than a third of what lsof takes,
or does not see the same descriptors. `python -m bench.lsof hold N` is the process that is looked at: it prints its pid.
"""

from __future__ import annotations

import os
import resource
import select
import socket
import statistics
import subprocess
import sys
import time

from leakline import proc

DESCRIPTORS = 19_500
ROUNDS = 9
HIGHEST_RATIO = 1 / 3


def hold(total: int) -> None:
    """Open `total` descriptors of all common kinds, say so, and keep them until stdin ends."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < total + 10:
        sys.exit(f"bench.lsof: needs {total} descriptors, and `ulimit -Hn` is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    kept: list[object] = []
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    share = (total - 4) // 12
    for _ in range(share):
        kept.append(socket.create_connection(listener.getsockname()))  # tcp, both ends: two shares
        kept.append(listener.accept()[0])
        kept.append(socket.socket())  # tcp, never bound
        bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        bound.bind(("127.0.0.1", 0))
        kept.append(bound)
        kept.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        kept.append(socket.socketpair())  # two shares
        kept.append(select.epoll())
        os.pipe()  # two shares
        os.eventfd(0) if hasattr(os, "eventfd") else os.open("/dev/zero", os.O_RDONLY)
    while len(os.listdir("/proc/self/fd")) - 1 < total:
        os.open(os.devnull if len(kept) % 2 else "/proc/self/status", os.O_RDONLY)
    print(os.getpid(), flush=True)
    sys.stdin.read()


def measure(pid: int) -> tuple[float, float]:
    """Median seconds of lsof and of a snapshot, over interleaved rounds."""
    lsof_s, leakline_s = [], []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        subprocess.run(["lsof", "-nP", "-p", str(pid)], stdout=subprocess.DEVNULL, check=True)
        lsof_s.append(time.perf_counter() - start)
        start = time.perf_counter()
        proc.snapshot(pid)
        leakline_s.append(time.perf_counter() - start)
    return statistics.median(lsof_s), statistics.median(leakline_s)


def check_same(pid: int) -> None:
    """End the program unless lsof and leakline list the same descriptors."""
    fields = subprocess.run(["lsof", "-nP", "-F", "f", "-p", str(pid)], capture_output=True, text=True, check=True)
    # From 10 000 on lsof cuts numbers to their last three digits ("f*123"); fcwd, ftxt and the like are no descriptors.
    theirs = [
        int(field[1:].lstrip("*")) for field in fields.stdout.split() if field[0] == "f" and field[1] in "*0123456789"
    ]
    snapshot = proc.snapshot(pid)
    ours = [number if number < 10_000 else number % 1_000 for number in (d.number for d in snapshot.descriptors)]
    if theirs != ours:
        sys.exit(f"bench.lsof: lsof lists {len(theirs)} descriptors, leakline {snapshot.total}: not the same ones")
    print(", ".join(f"{kind} {count}" for kind, count in snapshot.counts().items()))


def main() -> None:
    """Start the process, compare, print, exit."""
    command = [sys.executable, "-m", "bench.lsof", "hold", str(DESCRIPTORS)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as target:
        assert target.stdout is not None
        line = target.stdout.readline()
        if not line:
            sys.exit("bench.lsof: the process to look at did not start")
        check_same(int(line))
        lsof_s, leakline_s = measure(int(line))
    ratio = leakline_s / lsof_s
    print(f"{DESCRIPTORS} descriptors, medians of {ROUNDS} interleaved rounds:")
    print(f"  lsof -nP -p PID   {lsof_s * 1e3:7.1f} ms")
    print(f"  leakline.proc     {leakline_s * 1e3:7.1f} ms   ratio {ratio:.3f} (at most {HIGHEST_RATIO:.3f})")
    sys.exit(ratio > HIGHEST_RATIO)


if __name__ == "__main__":
    hold(int(sys.argv[2])) if sys.argv[1:2] == ["hold"] else main()
