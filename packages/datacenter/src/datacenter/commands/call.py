"""`datacenter call SERVICE.METHOD ARGS…`: one call from the shell."""

from __future__ import annotations

import base64
import enum
import json
from typing import Any

import typer

from datacenter.checks import MAX_SECONDS
from datacenter.commands.common import BROKER_OPTION, INSECURE_OPTION, seconds
from datacenter.errors import BadArgumentsError
from leakline.reports.style import write

RESERVED = ("returns", "deadline_s")  # parameters of Client.call itself


class Route(str, enum.Enum):
    """The choices of `ClientOptions.route`, for the command line."""

    auto = "auto"
    direct = "direct"
    relay = "relay"


def call(
    target: str = typer.Argument(metavar="SERVICE.METHOD", help="What to call."),
    arguments: list[str] = typer.Argument(
        None, metavar="[ARG | NAME=ARG]...", help="JSON values; what is not JSON is a string."
    ),
    deadline_s: float = typer.Option(
        10.0,
        "--deadline-s",
        "-d",
        min=0.01,
        max=MAX_SECONDS,
        callback=seconds,
        help="When the call ends at the latest (seconds).",
    ),
    route: Route = typer.Option(
        Route.auto, help="To the instance, through the broker's relay, or direct where it can be reached."
    ),
    broker: str = BROKER_OPTION,
    insecure: bool = INSECURE_OPTION,
) -> None:
    """Call a method and print its result as JSON (bytes: as base64).

    \b
    Examples:
      datacenter call greeter.hello Ann
      datacenter call stock.reserve '{"sku": "A1", "count": 2}' --deadline-s 2
      datacenter call math.add 1 b=2
      datacenter call greeter.hello Ann --route relay
    """
    from datacenter.client import Client, ClientOptions

    values, keywords = parse(arguments or [])
    with Client(broker, options=ClientOptions(insecure=insecure, route=route.value)) as client:
        result = client.call(target, *values, deadline_s=deadline_s, **keywords)
    write(json.dumps(result, default=_plain, ensure_ascii=False))


def parse(arguments: list[str]) -> tuple[list[Any], dict[str, Any]]:
    """Words of a command line -> positional and named arguments. Raises BadArgumentsError for a positional one after
    a named one.
    """
    values: list[Any] = []
    keywords: dict[str, Any] = {}
    for word in arguments:
        name, equals, text = word.partition("=")
        if equals and name.isidentifier():
            if name in RESERVED:
                raise BadArgumentsError(f"{name}=… cannot be given by name", "Give it by position.")
            keywords[name] = _value(text)
        elif keywords:
            raise BadArgumentsError(f"{word!r} comes after a named argument", "Put positional arguments first.")
        else:
            values.append(_value(word))
    return values, keywords


def _value(word: str) -> Any:
    try:
        return json.loads(word)
    except (ValueError, RecursionError):  # the latter of ten thousand brackets
        return word


def _plain(value: Any) -> Any:
    if isinstance(value, (bytes, bytearray)):
        return base64.b64encode(value).decode()
    return str(value)
