"""`datacenter drain SERVICE|INSTANCE_ID`: instances end in order, without a failed call."""

from __future__ import annotations

import concurrent.futures
import json
import queue
import sys
import time

import typer

from datacenter.checks import MAX_SECONDS
from datacenter.commands.common import BROKER_OPTION, INSECURE_OPTION, seconds
from datacenter.errors import DatacenterError, NoSuchServiceError
from datacenter.session import Session
from datacenter.wire import Instance, Resolution
from leakline.reports.style import write

CONNECT_S = 3.0


def drain(
    target: str = typer.Argument(
        metavar="SERVICE|INSTANCE_ID", help="All instances of a service, or one: `datacenter ls --json` shows the ids."
    ),
    wait: bool = typer.Option(True, help="Wait until they have left the registry."),
    deadline_s: float = typer.Option(
        10.0, "--deadline-s", "-d", min=0.01, max=MAX_SECONDS, callback=seconds, help="How long to wait (seconds)."
    ),
    broker: str = BROKER_OPTION,
    insecure: bool = INSECURE_OPTION,
    as_json: bool = typer.Option(False, "--json", help="One JSON object."),
) -> None:
    """End a service, or one of its instances, in order: no call fails, and none is lost.

    Each instance leaves the registry, tells calls that still come to go elsewhere, and finishes those that run, for its
    own --drain-s at most. `datacenter serve` then ends, once all services of the process were drained.

    Exit codes: 0 drained (or nobody serves it now), 1 some have not left the registry by the deadline, 2 wrong usage or
    no such service, 3 no broker.

    \b
    Examples:
      datacenter drain greeter
      datacenter drain greeter-5f0c9d1e7a32 --deadline-s 30
      datacenter drain greeter --no-wait --json | jq -r '.drained[].pid'
    """
    from datacenter import runtime
    from datacenter.session import SessionOptions

    process = runtime.acquire()
    session = process.session(broker, SessionOptions(insecure=insecure))
    try:
        session.wait_connected(CONNECT_S)
        service = _ask(session, target, min(deadline_s, CONNECT_S))
        left = _wait(session, service, deadline_s) if wait and service.instances else ()
    finally:
        process.release_session(session)
        runtime.release(process)
    _show(service, left, as_json)
    if left:
        raise typer.Exit(1)


def _ask(session: Session, target: str, deadline_s: float) -> Resolution:
    try:
        return session.drain(target).result(deadline_s)
    except NoSuchServiceError as error:
        print(f"datacenter: {error}", file=sys.stderr)
        raise typer.Exit(2) from None
    except concurrent.futures.TimeoutError:
        raise session.why_not(deadline_s) from None


def _wait(session: Session, service: Resolution, deadline_s: float) -> tuple[Instance, ...]:
    """Which of these instances are still registered, as soon as none is or at the deadline."""
    told: queue.SimpleQueue[Resolution | DatacenterError] = queue.SimpleQueue()
    session.watch(service.name, service.type, told.put)
    end = time.monotonic() + deadline_s
    left = service.instances
    try:
        while left:
            news = told.get(timeout=max(0.0, end - time.monotonic()))
            if isinstance(news, DatacenterError):
                return ()  # the name has gone to a service of another type: none of these is left
            if news.state != "settling":  # a broker that has just started does not know yet
                registered = {instance.id for instance in news.instances}
                left = tuple(instance for instance in left if instance.id in registered)
    except queue.Empty:
        pass
    return left


def _show(service: Resolution, left: tuple[Instance, ...], as_json: bool) -> None:
    drained = [instance for instance in service.instances if instance not in left]
    if as_json:
        rows = {"drained": [_row(instance) for instance in drained], "left": [_row(instance) for instance in left]}
        write(json.dumps({"schema": 1, "service": service.name, **rows}))
        return
    if not service.instances:
        print(f"nobody serves {service.name} now; what was drained before may still finish its calls", file=sys.stderr)
    for instance in drained:
        write(f"drained {instance.id}  pid {instance.pid}  {instance.endpoint}")
    for instance in left:
        print(
            f"datacenter: {instance.id} (pid {instance.pid}) was asked to end and is still registered\n"
            f"  It does not answer, or it is on its way: `datacenter ls`; end it by `kill {instance.pid}`.",
            file=sys.stderr,
        )


def _row(instance: Instance) -> dict[str, str | int]:
    return {"id": instance.id, "pid": instance.pid, "host": instance.host, "endpoint": instance.endpoint}
