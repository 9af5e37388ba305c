"""A load of ZooKeeper: clients that come and go, each makes nodes, watches them and removes them."""

import sys
import time

from kazoo.client import KazooClient

for number in range(sys.maxsize):
    clients = [KazooClient(hosts=f"127.0.0.1:{sys.argv[1]}", timeout=10) for _ in range(1 + number % 4)]
    for client in clients:
        client.start(timeout=60)
        path = client.create("/node-", ephemeral=True, sequence=True)
        client.get(path, watch=lambda _: None)
        client.delete(path)
    for client in clients:
        client.stop()
        client.close()
    print(number, flush=True)
    time.sleep(0.2)
