"""A real statsd listener: counts what arrives over UDP (`logins:1|c`), and prints its port and each 1000th sum."""

from __future__ import annotations

import re
import socket


def main() -> None:
    counters: dict[str, int] = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.settimeout(180)
        print(f"ready {listener.getsockname()[1]}", flush=True)
        while True:
            for name, value in re.findall(rb"([\w.]+):(\d+)\|c", listener.recv(1500)):
                counters[name.decode()] = total = counters.get(name.decode(), 0) + int(value)
                if total % 1000 == 0:
                    print(f"{name.decode()} {total}", flush=True)


if __name__ == "__main__":
    main()
