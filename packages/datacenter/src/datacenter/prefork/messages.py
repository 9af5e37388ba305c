"""What the processes of one prefork family say to each other, over pipes that only they hold. Pure.

Three pipes, each with its own closed sets of messages:
- supervisor and fork server: `ToForkServer`, `FromForkServer`; one message a packet, descriptors travel beside it;
- supervisor and worker: `ToWorker`, `FromWorker`;
- supervisor and watcher: `ToWatcher`, `FromWatcher`.
The last two are frames (framing.py). What a worker asks of the registry passes through the supervisor, which keeps it,
so that a new watcher is told all of it again; what the watcher hears goes to the workers that it concerns.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw, Struct, field

from datacenter.errors import ProtocolError
from datacenter.wire import Instance, Resolution, ServiceType

# --- supervisor -> fork server


class Prepare(Struct, frozen=True, array_like=True, tag="prepare", tag_field="tag"):
    """The first message: `function`, a "module:name" that imports what the workers need, is called with `arguments`.

    `patience_s`: so long the rest of the family may live after the supervisor has died; then it is killed.
    """

    function: str
    arguments: Raw
    patience_s: float


class Fork(Struct, frozen=True, array_like=True, tag="fork", tag_field="tag"):
    """Make a process named `title` that calls `function(pipe, arguments)`; its end of the pipe travels with this."""

    number: int
    function: str
    title: str


class Guard(Struct, frozen=True, array_like=True, tag="guard", tag_field="tag"):
    """A process of the family, as a pidfd that travels with this: to be killed if it outlives the supervisor."""


class Release(Struct, frozen=True, array_like=True, tag="release", tag_field="tag"):
    """Another fork server takes over: end, and leave everybody alone."""


ToForkServer = Prepare | Fork | Guard | Release

# --- fork server -> supervisor


class Prepared(Struct, frozen=True, array_like=True, tag="prepared", tag_field="tag"):
    """It can fork now. `warnings`: what it found that its children will not like."""

    warnings: tuple[str, ...] = ()


class NotPrepared(Struct, frozen=True, array_like=True, tag="not-prepared", tag_field="tag"):
    """What the workers need cannot be had; the error's code, words and hint. Said also by a worker that cannot begin,
    to the supervisor.
    """

    code: str
    message: str
    hint: str = ""


class NotForked(Struct, frozen=True, array_like=True, tag="not-forked", tag_field="tag"):
    """The kernel refused: no memory, no process, no descriptor."""

    number: int
    reason: str


FromForkServer = Prepared | NotPrepared | NotForked

# --- worker or watcher -> supervisor


class Started(Struct, frozen=True, array_like=True, tag="started", tag_field="tag"):
    """The first message of every process that was forked."""

    pid: int


class Serving(Struct, frozen=True, array_like=True, tag="serving", tag_field="tag"):
    """It can do its work: `endpoint` is where. Whether it is registered is another matter."""

    endpoint: str = ""


class Ready(Struct, frozen=True, array_like=True, tag="ready", tag_field="tag"):
    """All is well: registered, if it registers. What it replaces may go now."""


class Retired(Struct, frozen=True, array_like=True, tag="retired", tag_field="tag"):
    """It ends because somebody drained it by name: nobody takes its place."""


class Register(Struct, frozen=True, array_like=True, tag="register", tag_field="tag"):
    name: str
    type: ServiceType
    instance: Instance


class Unregister(Struct, frozen=True, array_like=True, tag="unregister", tag_field="tag"):
    instance_id: str


class Watch(Struct, frozen=True, array_like=True, tag="watch", tag_field="tag"):
    """From now on every change of this name is told as `Changed`; what it stands for now, too."""

    name: str
    type: ServiceType


class Unwatch(Struct, frozen=True, array_like=True, tag="unwatch", tag_field="tag"):
    name: str
    type: ServiceType


class Alive(Struct, frozen=True, array_like=True, tag="alive", tag_field="tag"):
    """A sign of life, from a thread that no code of the user can hold up. Any message is one."""


class Statistics(Struct, frozen=True, array_like=True, tag="statistics", tag_field="tag"):
    """Counts since its start (they only grow), and what is open now (gauges)."""

    counts: dict[str, int]
    gauges: dict[str, int] = field(default_factory=dict)


class AskFamily(Struct, frozen=True, array_like=True, tag="ask-family", tag_field="tag"):
    """Asks what the family's statistics are; answered as `Family`."""

    request: int


FromWorker = (
    Started
    | NotPrepared
    | Serving
    | Ready
    | Retired
    | Register
    | Unregister
    | Watch
    | Unwatch
    | Alive
    | Statistics
    | AskFamily
)

# --- supervisor -> worker


class End(Struct, frozen=True, array_like=True, tag="end", tag_field="tag"):
    """End in order, each in its own time; `urgent`: at once, also if told before."""

    urgent: bool = False


class Registered(Struct, frozen=True, array_like=True, tag="registered", tag_field="tag"):
    """It is in the registry. Said again after each time that it had to be registered anew."""

    instance_id: str
    epoch: int


class Refused(Struct, frozen=True, array_like=True, tag="refused", tag_field="tag"):
    """It is not registered, for now or for good; the error's code, words and hint."""

    instance_id: str
    code: str
    message: str
    hint: str = ""


class Unregistered(Struct, frozen=True, array_like=True, tag="unregistered", tag_field="tag"):
    instance_id: str


class DrainRequested(Struct, frozen=True, array_like=True, tag="drain-requested", tag_field="tag"):
    """Somebody typed `datacenter drain`."""

    instance_id: str


class Changed(Struct, frozen=True, array_like=True, tag="changed", tag_field="tag"):
    """What a watched name stands for now, whole: one that comes twice or late does no harm."""

    resolution: Resolution


class NoAnswer(Struct, frozen=True, array_like=True, tag="no-answer", tag_field="tag"):
    """Why a watched name stands for nothing (another type, a registry that is full)."""

    name: str
    type: ServiceType
    code: str
    message: str
    hint: str = ""


class SessionState(Struct, frozen=True, array_like=True, tag="session-state", tag_field="tag"):
    """Of the watcher's session with the registry: connecting, connected, lost."""

    state: str
    reason: str = ""


class Family(Struct, frozen=True, array_like=True, tag="family", tag_field="tag"):
    """The answer to AskFamily."""

    request: int
    statistics: dict[str, Any]


ToWorker = End | Registered | Refused | Unregistered | DrainRequested | Changed | NoAnswer | SessionState | Family

# --- supervisor <-> watcher

ToWatcher = End | Register | Unregister | Watch | Unwatch
FromWatcher = (
    Started
    | NotPrepared
    | Serving
    | Ready
    | Alive
    | Registered
    | Refused
    | Unregistered
    | DrainRequested
    | Changed
    | NoAnswer
    | SessionState
)

encode = msgspec.msgpack.Encoder().encode

to_fork_server: msgspec.msgpack.Decoder[ToForkServer] = msgspec.msgpack.Decoder(ToForkServer)
from_fork_server: msgspec.msgpack.Decoder[FromForkServer] = msgspec.msgpack.Decoder(FromForkServer)
to_worker: msgspec.msgpack.Decoder[ToWorker] = msgspec.msgpack.Decoder(ToWorker)
from_worker: msgspec.msgpack.Decoder[FromWorker] = msgspec.msgpack.Decoder(FromWorker)
to_watcher: msgspec.msgpack.Decoder[ToWatcher] = msgspec.msgpack.Decoder(ToWatcher)
from_watcher: msgspec.msgpack.Decoder[FromWatcher] = msgspec.msgpack.Decoder(FromWatcher)


def decoded(decoder: msgspec.msgpack.Decoder[Any], data: bytes) -> Any:
    """Bytes -> message of that set. Raises ProtocolError: the other end is not the family's."""
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"not a message of this pipe: {error}") from None
