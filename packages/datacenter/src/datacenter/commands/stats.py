"""`datacenter stats SERVICE`: what a service's instances count, and their sum."""

from __future__ import annotations

import concurrent.futures
import json
import sys
from collections import Counter
from typing import Any

import typer

from datacenter.asking import Told, ask_all
from datacenter.checks import MAX_SECONDS
from datacenter.commands.common import BROKER_OPTION, INSECURE_OPTION, seconds
from datacenter.errors import DatacenterError, no_such_service
from datacenter.wire import Resolution
from leakline.reports.style import write

CONNECT_S = 3.0
COLUMNS = ("calls", "errors", "refused", "malformed", "in_flight", "outbox", "dropped_replies")
SHOWN = ("calls", "errors", "refused", "in_flight", "outbox", "dropped_replies")  # in 80 columns


def stats(
    service: str = typer.Argument(metavar="SERVICE", help="Its name: `datacenter ls` shows all."),
    deadline_s: float = typer.Option(
        3.0, "--deadline-s", "-d", min=0.01, max=MAX_SECONDS, callback=seconds, help="How long each may take (seconds)."
    ),
    broker: str = BROKER_OPTION,
    insecure: bool = INSECURE_OPTION,
    as_json: bool = typer.Option(False, "--json", help="One JSON object."),
) -> None:
    """Show what the instances of a service count, and the sum; of a family of workers (`serve --workers`), also what
    those counted that have ended, and how often who was replaced.

    Exit codes: 0 all have answered, 1 some have not, 2 wrong usage or no such service, 3 no broker.

    \b
    Examples:
      datacenter stats greeter
      datacenter stats greeter --json | jq .total.calls
    """
    resolution, told = _ask(service, broker, insecure, deadline_s)
    answers = {where: answer for where, answer in told.items() if not isinstance(answer, DatacenterError)}
    families = families_of(answers)
    total = total_of(answers, families)
    if as_json:
        instances = [as_object(where, answer) for where, answer in answers.items()]
        silent = {where: error.message for where, error in told.items() if isinstance(error, DatacenterError)}
        write(json.dumps({"schema": 1, "service": service, "total": total, "instances": instances,
                          "families": list(families.values()), "silent": silent}))  # fmt: skip
    else:
        write("\n".join(as_lines(answers, families, total)))
        if not resolution.instances:
            print(f"nobody serves {service} now", file=sys.stderr)
    for error in told.values():
        if isinstance(error, DatacenterError):
            print(f"datacenter: {error}", file=sys.stderr)
    if len(answers) < len(told):
        raise typer.Exit(1)


def _ask(
    service: str, broker: str, insecure: bool, deadline_s: float
) -> tuple[Resolution, dict[str, Told | DatacenterError]]:
    from datacenter import runtime
    from datacenter.session import SessionOptions

    process = runtime.acquire()
    session = process.session(broker, SessionOptions(insecure=insecure))
    try:
        session.wait_connected(CONNECT_S)
        try:
            resolution = session.resolve(service, "rpc").result(CONNECT_S)
        except concurrent.futures.TimeoutError:
            raise session.why_not(CONNECT_S) from None
        if resolution.state == "unknown":
            print(f"datacenter: {no_such_service(service, broker)}", file=sys.stderr)
            raise typer.Exit(2)
        endpoints = [instance.endpoint for instance in resolution.instances]
        asked = ask_all(process, service, endpoints, deadline_s=deadline_s, insecure=insecure)
        return resolution, process.reactor.run(asked)
    finally:
        process.release_session(session)
        runtime.release(process)


def as_object(where: str, answer: Told) -> dict[str, Any]:
    """One instance, for JSON; its family is told apart."""
    family = answer.get("family")
    own = {name: value for name, value in answer.items() if name != "family"}
    return {**own, "endpoint": where, "supervisor": family["supervisor"] if family else None}


def families_of(answers: dict[str, Told]) -> dict[tuple[str, int], dict[str, Any]]:
    """(host, supervisor's pid) -> what the latest of its workers told of the whole family. Pure."""
    return {
        (answer["host"], answer["family"]["supervisor"]): {**answer["family"], "host": answer["host"]}
        for answer in answers.values()
        if answer.get("family")
    }


def total_of(answers: dict[str, Told], families: dict[tuple[str, int], dict[str, Any]]) -> dict[str, int]:
    """The sum of all columns: of each instance, and what the ended workers of the families had counted. Pure."""
    total: Counter[str] = Counter(dict.fromkeys(COLUMNS, 0))
    for answer in answers.values():
        total.update({name: answer["statistics"].get(name, 0) for name in COLUMNS})
    for family in families.values():
        total.update({name: family["ended"].get(name, 0) for name in COLUMNS})
    return dict(total)


def as_lines(
    answers: dict[str, Told], families: dict[tuple[str, int], dict[str, Any]], total: dict[str, int]
) -> list[str]:
    """A table of plain text, a line for each instance, then each family's state. Pure."""
    table = [("WHO", "PID", *(name.replace("_", " ").upper() for name in SHOWN))]
    for where, answer in sorted(answers.items(), key=lambda item: (str(item[1].get("name")), item[0])):
        who = answer.get("name") or where.removeprefix("tcp://")
        table.append((who, str(answer["pid"]), *(str(answer["statistics"].get(name, 0)) for name in SHOWN)))
    ended = [family["ended"] for family in families.values() if any(family["ended"].values())]
    table += [("ended", "-", *(str(counts.get(name, 0)) for name in SHOWN)) for counts in ended]
    table.append(("sum", "-", *(str(total[name]) for name in SHOWN)))
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    return [
        *("  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in table),
        *(
            f"supervisor {family['supervisor']}: workers replaced {family['restarts']} times, "
            f"watcher {family['watcher_restarts']}, fork server {family['fork_server_restarts']}; "
            f"reloads {family['reloads']}; registry {family['session']}"
            for family in families.values()
        ),
    ]
