"""Invariant 1 of the design: nothing outside `sockets/` makes, closes or monitors a ZeroMQ socket or context."""

from __future__ import annotations

import ast
from pathlib import Path

import datacenter.sockets

SOCKETS = Path(datacenter.sockets.__file__).resolve().parent
PACKAGE = SOCKETS.parent
#: The demo's bad example does what the incident did, with plain pyzmq, in a process of its own.
BAD_EXAMPLES = {"demo/naive_client.py"}
FORBIDDEN = {"get_monitor_socket", "monitor", "disable_monitor", "destroy", "term", "instance", "shadow"}


def offences(source: str) -> list[str]:
    found = []
    imports_zmq = False
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            imports_zmq |= any(alias.name.split(".")[0] == "zmq" for alias in node.names)
            found += [f"import {alias.name}" for alias in node.names if alias.name.startswith("zmq.")]
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "zmq":
            found.append(f"from {node.module} import")
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        name, on = node.func.attr, ast.unparse(node.func.value)
        if on == "zmq" and name in ("Context", "Socket", "proxy", "proxy_steerable"):
            found.append(f"zmq.{name}()")
        if name in FORBIDDEN and (on.startswith("zmq") or name.endswith(("monitor", "monitor_socket"))):
            found.append(f"{on}.{name}()")
        if name == "close" and on.endswith(".raw"):
            found.append(f"{on}.close()")
    return found


def test_the_check_sees_each_way() -> None:
    for line in (
        "zmq.Context()",
        "zmq.Context.instance()",
        "zmq.Socket(c, 1)",
        "s.get_monitor_socket()",
        "s.monitor('inproc://a')",
        "from zmq import Context",
        "import zmq.asyncio",
        "s.raw.close()",
        "zmq.proxy(a, b)",
    ):
        assert offences(line), line


def test_nothing_else_makes_or_closes_sockets() -> None:
    guilty = {
        str(path.relative_to(PACKAGE)): found
        for path in PACKAGE.rglob("*.py")
        if SOCKETS not in path.parents
        and str(path.relative_to(PACKAGE)) not in BAD_EXAMPLES
        and (found := offences(path.read_text()))
    }
    assert guilty == {}


def waiting_types(source: str) -> list[str]:
    """Uses of REQ or REP, which after a lost reply can never send again (EFSM)."""
    nodes = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute))
    return [ast.unparse(node) for node in nodes if node.attr in ("REQ", "REP")]


def test_there_is_no_req_on_any_path() -> None:
    assert waiting_types("s = c.socket(zmq.REQ)") == ["zmq.REQ"]
    assert waiting_types("s = c.socket(zmq.SocketType.REP)") == ["zmq.SocketType.REP"]
    guilty = {str(path): found for path in PACKAGE.rglob("*.py") if (found := waiting_types(path.read_text()))}
    assert guilty == {}
