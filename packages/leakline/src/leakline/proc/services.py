"""Names of well-known ports, from /etc/services."""

from __future__ import annotations

from functools import cache

_FILE = "/etc/services"


def service_names(protocol: str) -> dict[int, str]:
    """Port -> name of a protocol ("tcp", "udp"). No name service is asked: that may go to the network."""
    return _names().get(protocol, {})


@cache
def _names() -> dict[str, dict[int, str]]:
    names: dict[str, dict[int, str]] = {}
    try:
        with open(_FILE, errors="replace") as file:
            for line in file:
                fields = line.partition("#")[0].split()
                port, _, protocol = fields[1].partition("/") if len(fields) > 1 else ("", "", "")
                if port.isdigit():
                    names.setdefault(protocol, {}).setdefault(int(port), fields[0])
    except OSError:
        pass  # minimal containers have no such file: ports go without names
    return names
