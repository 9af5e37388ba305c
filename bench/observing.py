"""What `leakline PID` costs, without a recorder: itself, and the process that it looks at.

`python -m bench.observing` prints leakline's share of one core for a process of 10 000 descriptors, idle, busy in
bursts and busy all the time; and what a busy process achieves per second of its own processor time while it is
observed, beside while it is not: in one run, in turns of a second, leakline being stopped (SIGSTOP) in every other.
Exits 1 beyond 2 % of a core, or if the process achieves less by more than its unobserved turns differ among
themselves.
`python -m bench.observing target idle|paced|busy FILE` is the process.
"""

from __future__ import annotations

import json
import mmap
import os
import resource
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DESCRIPTORS = 10_000
SECONDS, SHORT_S = 21.0, 1.0
MOST_PERCENT = 2.0
TURNS, TURN_S = 40, 1.0
_COUNTS = struct.Struct("=qd")  # rounds of the loop, seconds of processor time


def target(manner: str, progress: str) -> None:
    """Hold the descriptors; busy: open, read, write and close without end, and tell how far it is."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    while os.open("/etc/passwd", os.O_RDONLY) < DESCRIPTORS - 1:
        pass
    with open(progress, "r+b") as file:
        told = mmap.mmap(file.fileno(), 0)
    print(os.getpid(), flush=True)
    if manner == "idle":
        signal.pause()
    read, write = os.pipe()
    rounds = 0
    while True:
        for _ in range(20):
            opened = [os.open("/etc/passwd", os.O_RDONLY) for _ in range(10)]
            os.write(write, b"x" * 100)
            os.read(read, 100)
            for number in opened:
                os.close(number)
        rounds += 20
        told[: _COUNTS.size] = _COUNTS.pack(rounds, time.thread_time())
        if manner == "paced":
            time.sleep(0.05)


@contextmanager
def running(manner: str) -> Iterator[tuple[int, Path]]:
    """The process, ready; its pid and the file in which it tells its progress."""
    with tempfile.NamedTemporaryFile(prefix="leakline-cost-") as file:
        file.write(bytes(_COUNTS.size))
        file.flush()
        words = [sys.executable, "-m", "bench.observing", "target", manner, file.name]
        with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            try:
                if not process.stdout.readline():
                    sys.exit(f"bench.observing: the process did not start; `ulimit -Hn` must be {2 * DESCRIPTORS}")
                yield process.pid, Path(file.name)
            finally:
                process.kill()


def cpu_of_leakline(pid: int, seconds: float) -> tuple[float, str]:
    """Processor time of the whole command, in seconds, and its verdict."""
    words = [sys.executable, "-m", "leakline", str(pid), "--for", f"{seconds:g}s", "--json"]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        verdict = json.loads(process.stdout.read())["verdict"]
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_utime + usage.ru_stime, verdict


def share(manner: str) -> float:
    """leakline's percent of one core while it observes. What it takes to start, to look at everything once and to
    report is told apart: it does not grow with the time.
    """
    with running(manner) as (pid, _):
        short, _ = cpu_of_leakline(pid, SHORT_S)
        long, verdict = cpu_of_leakline(pid, SECONDS)
    percent = 100 * (long - short) / (SECONDS - SHORT_S)
    once = f"{short:.2f} s once to start and report; verdict {verdict}"
    print(f"  {manner:6}  {percent:5.2f} % of a core (at most {MOST_PERCENT:g} %), and {once}", flush=True)
    return percent


def rate(progress: Path, seconds: float) -> float:
    """Rounds per second of the process's own processor time, over so many seconds."""
    before, used = _COUNTS.unpack(progress.read_bytes())
    time.sleep(seconds)
    after, now_used = _COUNTS.unpack(progress.read_bytes())
    return float((after - before) / (now_used - used))


def target_ratio() -> tuple[float, float]:
    """What the process achieves while observed, beside while not (medians); and how far two halves of its unobserved
    turns are apart: what cannot be told from noise.
    """
    observed: list[float] = []
    alone: list[float] = []
    with running("busy") as (pid, progress):
        words = [sys.executable, "-m", "leakline", "watch", str(pid), "--json"]
        with subprocess.Popen(words, stdout=subprocess.PIPE) as watching:
            assert watching.stdout is not None
            watching.stdout.readline()  # it has begun
            for turn in range(TURNS):
                watching.send_signal(signal.SIGCONT if turn % 2 else signal.SIGSTOP)
                (observed if turn % 2 else alone).append(rate(progress, TURN_S))
            watching.kill()
    noise = abs(statistics.median(alone[::2]) / statistics.median(alone[1::2]) - 1)
    return statistics.median(observed) / statistics.median(alone), noise


def main() -> int:
    """Measure, print."""
    print(f"leakline PID, a process of {DESCRIPTORS} descriptors:", flush=True)
    shares = [share(manner) for manner in ("idle", "paced", "busy")]
    ratio, noise = target_ratio()
    print(
        f"a busy process, observed, achieves {ratio:.3f} of what it does alone (whose own turns differ by {noise:.3f})"
    )
    slowed = ratio < 1 - max(noise, 0.02)
    return int(max(shares) > MOST_PERCENT or slowed)


if __name__ == "__main__":
    if sys.argv[1:2] == ["target"]:
        target(*sys.argv[2:4])
    else:
        sys.exit(main())
