"""Forks while libzmq opens and closes descriptors: each child has closed what it inherited, exactly, before it begins.

Arguments: number of forks. Prints "ok", and how many descriptors the children closed.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
import warnings
from contextlib import suppress

import zmq

from datacenter.sockets.ledger import Ledger, open_descriptors
from leakline.recorder import read_table

warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of any fork beside threads


def child(ledger: Ledger, baseline: dict[int, str], report: int) -> None:
    """What a child does: check that nothing is left and nothing was there that should not be, and begin afresh."""
    here = open_descriptors()
    assert here == baseline, f"left open: {here.items() - baseline.items()}, lost: {baseline.items() - here.items()}"
    figures = ledger.statistics()
    assert figures.strange_in_child == 0, f"{figures.strange_in_child} numbers were in the ledger and not open"
    assert not ledger.inherited()
    own = Ledger.open()
    assert own is not ledger
    assert own.exact, own.reason
    assert own.path != ledger.path
    with own.owner("child"):
        context = zmq.Context()
        pair = context.socket(zmq.PUB)
    assert not own.unexplained(baseline), own.unexplained(baseline)
    pair.close()
    context.term()
    own.close()
    os.write(report, figures.closed_in_child.to_bytes(8, "little"))


def load(context: zmq.Context[zmq.Socket[bytes]], port: int, begun: threading.Barrier, stop: threading.Event) -> None:
    """Sockets that come and go, and a connect that is retried each millisecond."""
    dead = context.socket(zmq.DEALER)
    dead.reconnect_ivl = 1
    dead.linger = 0
    dead.connect("tcp://127.0.0.1:9")
    begun.wait()  # from here on all max_sockets may be in use
    while not stop.is_set():
        try:
            client = context.socket(zmq.DEALER)
        except zmq.ZMQError:  # the reaper is behind
            stop.wait(0.01)
            continue
        client.linger = 0
        client.connect(f"tcp://127.0.0.1:{port}")
        client.send(b"question")
        client.close()
    dead.close()


def main() -> None:
    reading, report = os.pipe()
    baseline = open_descriptors()
    ledger = Ledger.open()
    context = zmq.Context()
    context.max_sockets = 200
    server = context.socket(zmq.ROUTER)
    port = server.bind_to_random_port("tcp://127.0.0.1")
    stop = threading.Event()
    begun = threading.Barrier(4)
    threads = [threading.Thread(target=load, args=(context, port, begun, stop), daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    begun.wait()
    closed = 0
    for _ in range(int(sys.argv[1])):
        with suppress(zmq.Again):
            while True:
                server.recv_multipart(zmq.DONTWAIT)
        pid = os.fork()
        if pid == 0:
            try:
                child(ledger, baseline, report)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0, "a child failed"
        closed += int.from_bytes(os.read(reading, 8), "little")
        assert not ledger.inherited()
    stop.set()
    for thread in threads:
        thread.join()
    server.close(0)
    end = time.monotonic() + 20
    while wrong := ledger.unexplained(baseline):
        assert time.monotonic() < end, wrong
    assert ledger.path
    assert ledger.path.exists(), "a child removed the parent's file"
    while read_table(ledger.path).entries != tuple(ledger.entries()):  # the reaper may still be closing
        assert time.monotonic() < end, "a child wrote to the parent's table"
    context.term()
    ledger.close()
    print("ok", closed)


main()
