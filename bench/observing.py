"""What `leakline PID` costs, without a recorder: itself, and the process that it looks at.

`python -m bench.observing` prints leakline's share of one core for a process of 10 000 descriptors, idle, busy in
bursts and busy all the time; and what a busy process achieves per second of its own processor time while it is
observed, beside while leakline looks at another process: in one run, in turns of a second, the two observers being
stopped (SIGSTOP) by turns. Exits 1 beyond 2 % of a core, or if the process achieves 2 % less, or by more than its
unobserved turns differ among themselves.
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
from contextlib import ExitStack, contextmanager
from pathlib import Path

DESCRIPTORS = 10_000
SECONDS = 20.0
MOST_PERCENT = 2.0
TURNS, TURN_S = 60, 1.0
SETTLE_S = 5.0
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


def share(manner: str) -> float:
    """leakline's percent of one core while it observes, between its first look at everything and its last."""
    with running(manner) as (pid, _):
        words = [sys.executable, "-m", "leakline", str(pid), "--for", f"{SECONDS + 2 * SETTLE_S:g}s", "--json"]
        with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            time.sleep(SETTLE_S)
            before, began = _cpu_s(process.pid), time.monotonic()
            time.sleep(SECONDS)
            percent = 100 * (_cpu_s(process.pid) - before) / (time.monotonic() - began)
            verdict = json.loads(process.stdout.read())["verdict"]
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
    whole = f"{usage.ru_utime + usage.ru_stime:.2f} s with its start and its report; verdict {verdict}"
    print(f"  {manner:6}  {percent:5.2f} % of a core (at most {MOST_PERCENT:g} %), {whole}", flush=True)
    return percent


def _cpu_s(pid: int) -> float:
    """Seconds that a process of one thread has run: proc(5), schedstat, in nanoseconds."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def rate(progress: Path, seconds: float) -> float:
    """Rounds per second of the process's own processor time, over so many seconds."""
    before, used = _COUNTS.unpack(progress.read_bytes())
    time.sleep(seconds)
    after, now_used = _COUNTS.unpack(progress.read_bytes())
    return float((after - before) / (now_used - used))


def target_ratio() -> tuple[float, float]:
    """What the process achieves while observed, beside while leakline observes another one (medians): that its own
    processor time shares caches and cores is nothing that looking does to the process. And how far the medians of two
    halves of the unobserved turns, each next to one of the other, are apart: what cannot be told from noise.
    """
    rates: tuple[list[float], list[float]] = ([], [])
    with running("busy") as (pid, progress), running("idle") as (other, _), ExitStack() as stack:
        observers = [stack.enter_context(observing(each)) for each in (other, pid)]
        time.sleep(SETTLE_S)  # their start, and their first look at everything
        for turn in range(TURNS):
            observers[turn % 2].send_signal(signal.SIGCONT)
            observers[1 - turn % 2].send_signal(signal.SIGSTOP)
            rates[turn % 2].append(rate(progress, TURN_S))
    alone, observed = rates
    noise = abs(statistics.median(alone[::2]) / statistics.median(alone[1::2]) - 1)
    return statistics.median(observed) / statistics.median(alone), noise


@contextmanager
def observing(pid: int) -> Iterator[subprocess.Popen[bytes]]:
    """A `leakline PID` that goes on for as long as all turns."""
    words = [sys.executable, "-m", "leakline", str(pid), "--for", f"{2 * TURNS * TURN_S + SETTLE_S:g}s", "--json"]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


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
