"""`datacenter ls`: who serves what."""

from __future__ import annotations

import json

import msgspec
import typer

from datacenter.commands.common import BROKER_OPTION, INSECURE_OPTION
from datacenter.wire import Resolution
from leakline.reports.style import write

CONNECT_S = 3.0


def ls(
    broker: str = BROKER_OPTION,
    insecure: bool = INSECURE_OPTION,
    as_json: bool = typer.Option(False, "--json", help="One JSON object."),
) -> None:
    """List the services that the broker knows, and their instances.

    \b
    Examples:
      datacenter ls
      datacenter ls --json | jq '.services[].name'
    """
    from datacenter import runtime
    from datacenter.session import SessionOptions

    process = runtime.acquire()
    session = process.session(broker, SessionOptions(insecure=insecure))
    try:
        welcome = session.wait_connected(CONNECT_S)
        services = session.list_services().result(CONNECT_S)
    finally:
        process.release_session(session)
        runtime.release(process)
    if as_json:
        write(
            json.dumps(
                {"schema": 1, "broker": msgspec.to_builtins(welcome), "services": [as_object(s) for s in services]}
            )
        )
        return
    if not services:
        typer.echo("no service has registered; start one: datacenter serve MODULE:SERVICE", err=True)
    else:
        write("\n".join(as_lines(services)))


def as_object(resolution: Resolution) -> dict[str, object]:
    """A resolution with names for its fields (on the wire it is an array)."""
    instances = [
        {**{key: getattr(instance, key) for key in ("id", "endpoint", "pid", "host", "epoch", "metadata")},
         "methods": [{"name": m.name, "signature": m.signature, "idempotent": m.idempotent} for m in instance.methods]}
        for instance in resolution.instances
    ]  # fmt: skip
    return {
        "name": resolution.name,
        "type": resolution.type,
        "state": resolution.state,
        "version": resolution.version,
        "relay": resolution.relay or None,
        "instances": instances,
    }


def as_lines(services: tuple[Resolution, ...]) -> list[str]:
    """A table of plain text: a line for each instance, or for the name alone while nobody serves it."""
    rows = [("SERVICE", "TYPE", "STATE", "PID", "ENDPOINT", "METHODS")]
    for service in services:
        for instance in service.instances:
            methods = " ".join(method.name for method in instance.methods)
            if service.type == "foreign":  # it has none: what is known of it instead
                methods = " ".join(f"{key}={value}" for key, value in instance.metadata.items())
            pid = str(instance.pid or "-")
            rows.append((service.name, service.type, service.state, pid, instance.endpoint, methods))
        if not service.instances:
            rows.append((service.name, service.type, service.state, "-", "-", "-"))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    if len(rows) == 1:
        return []
    return [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=True)), row[-1]]).rstrip()
        for row in rows
    ]
