"""The health check put right: connection and response are closed when the status is known, and only that is kept.

python health_fixed.py PORT
"""

from __future__ import annotations

import http.client
import sys
from collections import deque
from contextlib import closing

from casebook.pace import requests

statuses: deque[int] = deque(maxlen=100)


def check(port: int) -> int:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5.0)) as connection:
        connection.request("GET", "/health")
        with connection.getresponse() as response:
            statuses.append(response.status)
            return response.status


def main() -> None:
    for _request in requests(per_second=10):
        check(int(sys.argv[1]))


if __name__ == "__main__":
    main()
