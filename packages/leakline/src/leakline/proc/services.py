"""Names of well-known ports, from /etc/services."""

from __future__ import annotations

from functools import cache

_FILE = "/etc/services"


def service_name(protocol: str, port: int) -> str | None:
    """The name of a port, or None. No name service is asked: that may go to the network."""
    return _names().get((protocol, port))


@cache
def _names() -> dict[tuple[str, int], str]:
    names: dict[tuple[str, int], str] = {}
    try:
        with open(_FILE, errors="replace") as file:
            for line in file:
                fields = line.partition("#")[0].split()
                port, _, protocol = fields[1].partition("/") if len(fields) > 1 else ("", "", "")
                if port.isdigit():
                    names.setdefault((protocol, int(port)), fields[0])
    except OSError:
        pass  # minimal containers have no such file: ports go without names
    return names
