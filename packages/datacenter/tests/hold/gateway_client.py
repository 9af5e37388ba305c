"""Clients of a gateway that count what becomes of each request: threads that SET, one after another.

    python gateway_client.py PORT CLIENTS       (in a network namespace: the figures at each line of its input)

`Load(port, clients, by_connection)`. A request ends in "answered", in an error that names a server's address (sharded
Redis), or with its connection; with `by_connection` each connection first asks which server it got (INFO), so that an
end can be laid at that server's door. One that ends before it could ask is counted as "refused".
"""

from __future__ import annotations

import json
import re
import sys
import threading
import time
from collections import Counter
from types import TracebackType
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

#: nutcracker ends a connection that wants to tell its name
_NAMELESS: dict[str, Any] = {"lib_name": None, "lib_version": None, "driver_info": None}
_ADDRESS = re.compile(r"redis at [\d.]+:(\d+)")


class Load:
    """A context manager: the clients run inside."""

    def __init__(self, port: int, *, clients: int, by_connection: bool, host: str = "127.0.0.1") -> None:
        self.ends: Counter[str] = Counter()
        self.blamed: Counter[int] = Counter()  # port of a server -> requests that ended otherwise
        self.longest_s = 0.0  # from one answer of a client to its next
        self._host, self._port = host, port
        self._by_connection = by_connection
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number: int) -> None:
        answered_at, turn = time.monotonic(), 0
        while not self._stop.is_set():
            once = Retry(NoBackoff(), 0)
            client = redis.Redis(self._host, self._port, protocol=2, socket_timeout=20.0, retry=once, **_NAMELESS)
            server = 0
            try:
                if self._by_connection:
                    server = int(client.info("server")["tcp_port"])
                while not self._stop.is_set():
                    turn += 1
                    try:
                        client.execute_command("SET", f"{number}:{turn % 1000}", "x")
                    except redis.ResponseError as error:
                        self._count("error", _ADDRESS.search(str(error)), str(error))
                        time.sleep(0.002)
                        continue
                    now = time.monotonic()
                    with self._lock:
                        self.ends["answered"] += 1
                        self.longest_s = max(self.longest_s, now - answered_at)
                    answered_at = now
            except redis.RedisError as error:
                with self._lock:
                    self.ends["refused" if self._by_connection and not server else "connection"] += 1
                    self.blamed[server] += 1
                    self.ends[f"  {type(error).__name__}"] += 1
                time.sleep(0.005)
            finally:
                client.close()

    def _count(self, what: str, address: re.Match[str] | None, text: str) -> None:
        with self._lock:
            self.ends[what] += 1
            if address is not None:
                self.blamed[int(address[1])] += 1
                self.ends["error of a request not in flight"] += "whether the request was carried out" not in text
            else:
                self.ends[f"  {text[:80]}"] += 1


def main() -> None:
    """Says "loading", then at each line what became of the requests since the one before."""
    port, clients = int(sys.argv[1]), int(sys.argv[2])
    with Load(port, clients=clients, by_connection=False) as load:
        print("loading", flush=True)
        for _ in sys.stdin:
            ends, longest_s = load.ends, load.longest_s
            load.ends, load.longest_s = Counter(), 0.0
            print(json.dumps({"ends": ends, "longest_s": round(longest_s, 2)}), flush=True)


if __name__ == "__main__":
    main()
