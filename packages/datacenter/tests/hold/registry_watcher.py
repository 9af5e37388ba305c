"""Watches one name at a broker. Arguments: BROKER NAME. Says each change, one JSON object a line:
{"state": …, "pids": [...], "at": T} (T: time.monotonic()).
"""

from __future__ import annotations

import json
import sys
import time

from datacenter import DatacenterError, runtime
from datacenter.wire import Resolution


def main() -> None:
    broker, name = sys.argv[1:]

    def told(news: Resolution | DatacenterError) -> None:
        if isinstance(news, Resolution):
            pids = sorted(instance.pid for instance in news.instances)
            print(json.dumps({"state": news.state, "pids": pids, "at": time.monotonic()}), flush=True)

    process = runtime.acquire()
    session = process.session(broker)
    try:
        session.wait_connected(10)
        session.watch(name, "rpc", told)
        sys.stdin.readline()
    finally:
        process.release_session(session)
        runtime.release(process)


if __name__ == "__main__":
    main()
