"""`make hold-attach`: so many attachments to busy processes: none crashes, answers wrongly or keeps anything.

    python hold_attach.py [CYCLES]

A Python server (asyncio and threads) whose client checks each answer, and redis-server under redis-benchmark.
"""

from __future__ import annotations

import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from leakline import proc
from leakline.recorder.attach import attach

MEDIAN_MS, WORST_MS = 10.0, 50.0
RSS_GROWTH_KB = 8192

SERVER = """
import asyncio, concurrent.futures, os, threading, time
pool = concurrent.futures.ThreadPoolExecutor(4)
def work(number):
    with open("/proc/self/stat") as file:
        file.read()
    for _ in range(200):
        number = number * 1103515245 + 12345 & 0x7FFFFFFF
    return number
def background():
    while True:
        reading, writing = os.pipe()
        os.write(writing, b"x"); os.read(reading, 1)
        os.close(reading); os.close(writing)
        time.sleep(0.002)
async def serve(reader, writer):
    while line := await reader.readline():
        answer = await asyncio.get_running_loop().run_in_executor(pool, work, int(line))
        await asyncio.sleep(0.001)
        writer.write(b"%d\\n" % answer)
    writer.close()
async def main():
    for _ in range(2):
        threading.Thread(target=background, daemon=True).start()
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.sleep(3600)
asyncio.run(main())
"""


def expected(number: int) -> int:
    for _ in range(200):
        number = number * 1103515245 + 12345 & 0x7FFFFFFF
    return number


class Client(threading.Thread):
    """Asks all the time, over connections that come and go, and counts answers and wrong ones."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self.port, self.answers, self.wrong, self.done = port, 0, [], False

    def run(self) -> None:
        number = 1
        while not self.done:
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=30) as connection:
                    file = connection.makefile("rwb")
                    for _ in range(20):
                        file.write(b"%d\n" % number)
                        file.flush()
                        answer = file.readline()
                        if answer != b"%d\n" % expected(number):
                            self.wrong.append(f"{number}: {answer!r}")
                        self.answers += 1
                        number += 1
            except OSError as error:
                self.wrong.append(str(error))
                return


def rss_kb(pid: int) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(next(line.split()[1] for line in text.splitlines() if line.startswith("VmRSS:")))


def cycles(pid: int, count: int) -> list[tuple[float, float]]:
    """Milliseconds that a thread stood still, for each attaching and detaching; of these, for a processor."""
    held = []
    for _ in range(count):
        attached = attach(pid)
        held.append((attached.held_s * 1000, attached.waited_s * 1000))
        detached_s = attached.detach()
        held.append((detached_s * 1000, attached.waited_s * 1000))
        attached.close()
    return held


def at_rest(pid: int, most: int) -> int:
    """Descriptors, once there are no more than before; else what they are after 20 s."""
    until = time.monotonic() + 20
    while (count := proc.count(pid)) > most and time.monotonic() < until:
        time.sleep(0.01)
    return count


def hold(name: str, pid: int, count: int) -> None:
    cycles(pid, 3)  # the library, and what the first recording allocates, stays
    before = rss_kb(pid)
    held = cycles(pid, count)
    median, grown = statistics.median(stood for stood, _ in held), rss_kb(pid) - before
    worst = max(stood - waited for stood, waited in held)  # a busy machine makes any thread wait for a processor
    told = f"worst {worst:.2f} ms ({max(stood for stood, _ in held):.2f} with waits for a processor)"
    print(f"{name}: {count} cycles, median {median:.2f} ms, {told}, RSS {grown:+} kB", flush=True)
    assert median < MEDIAN_MS
    assert worst < WORST_MS
    assert grown < RSS_GROWTH_KB


def hold_python(count: int) -> None:
    server = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        idle = proc.count(server.pid)
        clients = [Client(port) for _ in range(3)]
        for client in clients:
            client.start()
        try:
            hold("python", server.pid, count)
        finally:
            for client in clients:
                client.done = True
            for client in clients:
                client.join()
        assert server.poll() is None
        assert not [client.wrong for client in clients if client.wrong]
        print(f"python: {sum(client.answers for client in clients)} answers, all right")
        assert at_rest(server.pid, idle + 4) <= idle + 4  # two pipes that come and go
    finally:
        server.kill()
        server.communicate()


def hold_redis(count: int) -> None:
    folder = tempfile.mkdtemp()
    place = os.path.join(folder, "redis")
    server = subprocess.Popen(
        ["redis-server", "--port", "0", "--unixsocket", place, "--save", "", "--dir", folder], stdout=subprocess.DEVNULL
    )
    load = None
    try:
        until = time.monotonic() + 20
        while not os.path.exists(place):
            assert time.monotonic() < until
        idle = proc.count(server.pid)
        load = subprocess.Popen(
            ["redis-benchmark", "-s", place, "-q", "-l", "-c", "20", "-t", "set,get"], stdout=subprocess.DEVNULL
        )
        hold("redis", server.pid, count)
        assert load.poll() is None
        load.kill()
        load.wait()
        assert server.poll() is None
        answer = subprocess.run(["redis-cli", "-s", place, "set", "a", "b"], capture_output=True, text=True, timeout=20)
        assert answer.stdout == "OK\n"
        assert at_rest(server.pid, idle) <= idle
    finally:
        for process in (load, server):
            if process is not None:
                process.kill()
                process.wait()
        shutil.rmtree(folder)


if __name__ == "__main__":
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else 400
    hold_python(wanted)
    if shutil.which("redis-server"):
        hold_redis(wanted)
    else:
        print("redis: not installed (apt install redis-server)")
    print("held")
