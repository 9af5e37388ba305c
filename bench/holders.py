"""`leakline holders :PORT` and `PATH` beside lsof and fuser, on a machine with 20 000 descriptors more: whole commands,
interleaved.

`python -m bench.holders` prints medians and ratios, and exits 1 if leakline takes longer than lsof, or if one of the
three names other processes. `python -m bench.holders hold N` is one of the processes that are looked through.
"""

from __future__ import annotations

import json
import os
import re
import resource
import select
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack

PROCESSES, DESCRIPTORS = 20, 1000
ROUNDS = 9


def hold(folder: str, total: int) -> None:
    """Open `total` descriptors of common kinds, say so, and keep them until stdin ends."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, total + 100), hard))
    kept: list[object] = []
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    while len(kept) < total:
        client = socket.create_connection(listener.getsockname())
        kept += [client, listener.accept()[0], *socket.socketpair(), *os.pipe(), select.epoll()]
        kept += [os.open(os.path.join(folder, f"{os.getpid()}-{len(kept) % 50}"), os.O_CREAT | os.O_RDWR)]
    print(os.getpid(), flush=True)
    sys.stdin.read()


def commands(port: int, path: str) -> dict[str, dict[str, list[str]]]:
    """What is compared: by question, by tool."""
    leakline = shutil.which("leakline", path=os.path.dirname(sys.executable)) or "leakline"
    return {
        "a port": {
            "lsof": ["lsof", "-nP", "-t", f"-iTCP:{port}", "-sTCP:LISTEN"],
            "fuser": ["fuser", f"{port}/tcp"],
            "leakline": [leakline, "holders", f":{port}", "--json"],
        },
        "a file": {
            "lsof": ["lsof", "-t", path],
            "fuser": ["fuser", path],
            "leakline": [leakline, "holders", path, "--json"],
        },
    }


def run(words: list[str]) -> tuple[float, set[int]]:
    """Seconds, and the processes that were named."""
    start = time.perf_counter()
    done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    seconds = time.perf_counter() - start
    if done.stdout.startswith("{"):
        return seconds, {row["pid"] for row in json.loads(done.stdout)["rows"]}
    return seconds, set(map(int, re.findall(r"\d+", done.stdout)))


def main() -> int:
    """Start the processes, compare, print."""
    slow = False
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="leakline-holders-"))
        for _ in range(PROCESSES):
            words = [sys.executable, "-m", "bench.holders", "hold", folder, str(DESCRIPTORS)]
            process = stack.enter_context(subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
            assert process.stdout is not None
            if not process.stdout.readline():
                sys.exit("bench.holders: a process to look through did not start")
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        path = os.path.join(folder, "asked for")
        stack.enter_context(open(path, "w"))
        for question, tools in commands(server.getsockname()[1], path).items():
            times: dict[str, list[float]] = {tool: [] for tool in tools}
            for _ in range(ROUNDS):
                for tool, words in tools.items():
                    seconds, pids = run(words)
                    times[tool].append(seconds)
                    if pids != {os.getpid()}:
                        sys.exit(f"bench.holders: {' '.join(words)} names {sorted(pids)}, not {os.getpid()}")
            slow |= told(question, times)
    return int(slow)


def told(question: str, times: dict[str, list[float]]) -> bool:
    """Print the medians; whether leakline was slower than lsof."""
    medians = {tool: statistics.median(seconds) for tool, seconds in times.items()}
    print(f"{question}, {PROCESSES * DESCRIPTORS} descriptors in {PROCESSES} processes, medians of {ROUNDS} rounds:")
    for tool, seconds in medians.items():
        print(f"  {tool:8}  {seconds * 1e3:7.1f} ms   leakline takes {medians['leakline'] / seconds:.2f} of it")
    return medians["leakline"] > medians["lsof"]


if __name__ == "__main__":
    if sys.argv[1:2] == ["hold"]:
        hold(sys.argv[2], int(sys.argv[3]))
    else:
        sys.exit(main())
