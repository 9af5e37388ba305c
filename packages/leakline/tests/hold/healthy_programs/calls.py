"""A client of datacenter that calls in bursts, and opens and closes a client of its own now and then."""

import os
import sys
import time

from datacenter import Client, ClientOptions

with Client(os.environ.get("DATACENTER_BROKER"), options=ClientOptions()) as client:
    for number in range(sys.maxsize):
        for _ in range(1 + number % 30):
            client.call("greeter.hello", "Ann", returns=str)
        print(number, flush=True)
        time.sleep(0.1)
