"""A datacenter process to look at: a context, a listener, a registered pipe. With "churn" it never rests; with
"wrong" its ledger has two entries that are not true.

Prints its pid when it is ready, and waits to be killed.
"""

from __future__ import annotations

import os
import sys
import time

import zmq

from datacenter.sockets.ledger import Ledger

ledger = Ledger.open()
with ledger.owner("context datacenter"):
    context = zmq.Context()
    server = context.socket(zmq.ROUTER)
with ledger.owner("server"):
    port = server.bind_to_random_port("tcp://127.0.0.1")
reading, writing = os.pipe()
ledger.register(reading, "pipe", "wake-up")
ledger.register(writing, "pipe", "wake-up")
foreign = open("/etc/passwd")  # noqa: SIM115 - to be listed among the others
if "wrong" in sys.argv:
    ledger.register(9000, "eventfd", "never opened")
    ledger.register(foreign.fileno(), "eventfd", "taken over")
print(os.getpid(), flush=True)
while True:
    if "churn" in sys.argv:
        socket = context.socket(zmq.PUB)
        socket.bind("tcp://127.0.0.1:*")
        socket.close()
    else:
        time.sleep(1)
