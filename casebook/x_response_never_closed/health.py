"""A health check looks at the status and at nothing else: the response is kept for the status page, its body unread.

    python health.py PORT

An unread response holds its connection. The server hangs up after a while; this end stays in CLOSE_WAIT.
"""

from __future__ import annotations

import http.client
import sys

from casebook.pace import requests

responses: list[http.client.HTTPResponse] = []


def check(port: int) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5.0)
    connection.request("GET", "/health")  # casebook: connection
    response = connection.getresponse()
    responses.append(response)
    return response.status


def main() -> None:
    for _request in requests(per_second=10):
        check(int(sys.argv[1]))


if __name__ == "__main__":
    main()
