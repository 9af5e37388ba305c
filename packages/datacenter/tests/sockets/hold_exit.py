"""Leave the process at a random moment of an outage, in seven ways, many times: never an abort, never a hang.

    python packages/datacenter/tests/sockets/hold_exit.py [RUNS]

Prints one line, and a line for each run that ended otherwise than it should; status 1 if there was one.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time

#: way to leave -> the status it must end with
WAYS = {
    "return": 0,
    "exception": 1,
    "exit in a thread": 0,
    "daemon thread inside recv": 0,
    "SIGTERM": -signal.SIGTERM,
    "SIGINT": -signal.SIGINT,
    "close": 0,
}
DEADLINE_S = 20.0

PROGRAM = """
import random, sys, threading, time, zmq
from datacenter.sockets import SocketContext
chance, way = random.Random(int(sys.argv[1])), sys.argv[2]
restless = {"reconnect_min_ms": 1, "reconnect_max_ms": 0}
context = SocketContext("outage")
server = context.socket(zmq.ROUTER, owner="server")
address = server.bind("tcp://127.0.0.1:*")
clients = [context.socket(zmq.DEALER, owner=f"client {n}", **restless) for n in range(5)]
dead = [context.socket(zmq.DEALER, owner=f"dead {n}", **restless) for n in range(3)]
for client in clients:
    client.connect(address)
for client in dead:
    client.connect(f"tcp://127.0.0.1:{chance.randrange(20000, 30000)}")
end = time.monotonic() + (60 if way.startswith("SIG") else chance.random() * 0.15)
if chance.random() < 0.5:
    server.unbind()

def work():
    while time.monotonic() < end:
        for client in clients:
            client.raw.send(b"x", zmq.DONTWAIT)
        if server.raw.poll(1):
            server.raw.recv_multipart()
        with context.socket(zmq.DEALER, owner="query") as query:
            query.connect(address)

def work_and_exit():
    work()
    sys.exit(3)

def receive():
    try:
        while True:
            clients[0].raw.recv()
    except zmq.ContextTerminated:
        clients[0].close()

print("up", flush=True)
if way == "exit in a thread":
    worker = threading.Thread(target=work_and_exit)
    worker.start()
    worker.join()
elif way == "daemon thread inside recv":
    threading.Thread(target=receive, daemon=True).start()
    while time.monotonic() < end:
        time.sleep(0.001)
else:
    work()
if way == "exception":
    raise KeyError("mine")
if way == "close":
    assert context.close().clean
"""


def run_once(seed: int, way: str) -> str:
    """Run one process; returns what was wrong with its end, or ""."""
    command = [sys.executable, "-W", "ignore::ResourceWarning", "-c", PROGRAM, str(seed), way]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    if way.startswith("SIG"):
        time.sleep(random.random() * 0.15)  # the random moment
        process.send_signal(signal.Signals[way])
    try:
        errors = process.communicate(timeout=DEADLINE_S)[1]
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return f"still there after {DEADLINE_S} s"
    return "" if process.returncode == WAYS[way] else f"status {process.returncode}\n{errors[-800:]}"


def main(runs: int) -> int:
    bad = 0
    for seed in range(runs):
        way = list(WAYS)[seed % len(WAYS)]
        if wrong := run_once(seed, way):
            bad += 1
            print(f"run {seed}, {way}: {wrong}", flush=True)
    print(f"{runs} exits in {len(WAYS)} ways at a random moment of an outage: {bad} ended otherwise than they should")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 210))
