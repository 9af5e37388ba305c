"""A relay of `shop` in a process of its own, between its clients and the instance whose endpoint is given."""

import sys
import threading

from datacenter.broker.relay import Relay
from datacenter.sockets import SocketContext

with SocketContext("relay") as context, Relay("shop", context) as relay:
    relay.set_instances(sys.argv[1:])
    print(f"relay at {relay.endpoint}", flush=True)
    threading.Event().wait()
