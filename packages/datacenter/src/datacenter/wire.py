"""Messages <-> frames, and nothing else: no socket, no clock, no state.

Every message of datacenter is ONE ZeroMQ frame: a MessagePack array `[tag, field, …]` (msgspec, array_like).
One frame because a ROUTER adds exactly one (the routing id) in front: reading two bare frames and asking for RCVMORE
once is then enough to notice any peer that sends more or fewer, without losing step with the messages behind it.

On a data connection several small messages may travel in one such frame, in both directions and at any time: a bundle,
the byte 0xC1, with which no MessagePack begins, then of each its length (32 bits, little-endian) and its bytes
(sockets/bundles.py has the bounds). Only replies to calls with ids from FIRST_CALL_ID on travel so: a client written by
hand that counts from 1 gets each alone. A service written by hand must take bundles.

Three closed sets of messages, each with its own decoder, so that a message in the wrong place is refused by type:
`ToBroker` and `FromBroker` on the control connection, `ToService` and `FromService` on a data connection.
"""

from __future__ import annotations

import re
from typing import Any, Final, Literal

import msgspec
from msgspec import Raw, Struct, field

from datacenter.errors import NotServableError, ProtocolError

PROTOCOL: Final = 1

#: what a name registers: rpc methods, a topic, a stage of a pipeline, or servers that speak a protocol of their own
ServiceType = Literal["rpc", "topic", "pipeline", "foreign"]

#: live: has instances. away: known, none alive. settling: unknown so far, the broker has just started. unknown: never
#: registered
ResolutionState = Literal["live", "away", "settling", "unknown"]

NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")
#: the method by which any instance tells what it counts; no user's method can have a dot in its name
STATISTICS: Final = "datacenter.statistics"
NO_KEYWORDS: Final = Raw(b"\x80")  # MessagePack of {}


class Method(Struct, frozen=True, array_like=True):
    """One endpoint of a service. `idempotent`: a call may be repeated when its outcome is unknown."""

    name: str
    signature: str = ""
    idempotent: bool = False


class Instance(Struct, frozen=True, array_like=True):
    """One running process that serves a name. `epoch` is set by the registry and only ever grows.

    `max_message_bytes`: larger calls end the connection (0: not told).
    """

    id: str
    endpoint: str
    methods: tuple[Method, ...] = ()
    pid: int = 0
    host: str = ""
    epoch: int = 0
    metadata: dict[str, str] = field(default_factory=dict)
    max_message_bytes: int = 0


class Resolution(Struct, frozen=True, array_like=True):
    """What a name stands for at one moment. `version` grows with every change of this name.

    `relay`: where the broker's relay of this name listens; "" while it has none.
    """

    name: str
    type: ServiceType
    state: ResolutionState
    version: int
    instances: tuple[Instance, ...] = ()
    relay: str = ""


# --- process -> broker (control connection). Any message counts as a heartbeat and renews the sender's leases.


class Hello(Struct, frozen=True, array_like=True, tag=1, tag_field="tag"):
    protocol: int
    version: str
    pid: int
    host: str
    process: str


class Heartbeat(Struct, frozen=True, array_like=True, tag=2, tag_field="tag"):
    """`number` is not 0: it is answered by a BrokerHeartbeat with the same one."""

    number: int = 0


class Bye(Struct, frozen=True, array_like=True, tag=3, tag_field="tag"):
    """The session ends in order: its instances leave at once."""


class Register(Struct, frozen=True, array_like=True, tag=4, tag_field="tag"):
    request: int
    name: str
    type: ServiceType
    instance: Instance


class Unregister(Struct, frozen=True, array_like=True, tag=5, tag_field="tag"):
    request: int
    instance_id: str


class Resolve(Struct, frozen=True, array_like=True, tag=6, tag_field="tag"):
    """Asks for a name. With `watch`, every later change of it is told as `Changed` until `Unwatch` or the session's
    end. With `relay` too, the broker makes a relay of the name, or tells why not as `NoRelay`.
    """

    request: int
    name: str
    type: ServiceType
    watch: bool = True
    relay: bool = False


class Unwatch(Struct, frozen=True, array_like=True, tag=7, tag_field="tag"):
    name: str


class ListServices(Struct, frozen=True, array_like=True, tag=8, tag_field="tag"):
    request: int


class Drain(Struct, frozen=True, array_like=True, tag=9, tag_field="tag"):
    """Asks that a service's instances end in order, or one instance. `target`: a service's name or an instance's id."""

    request: int
    target: str


ToBroker = Hello | Heartbeat | Bye | Register | Unregister | Resolve | Unwatch | ListServices | Drain


# --- broker -> process


class Welcome(Struct, frozen=True, array_like=True, tag=1, tag_field="tag"):
    """The broker's answer to Hello: who it is and which limits hold. Seconds and bytes."""

    protocol: int
    version: str
    broker_id: str
    heartbeat_s: float
    missed_heartbeats: int
    lease_s: float
    max_message_bytes: int
    max_instances: int
    #: which registry it has, where several brokers share one: versions of resolutions can then be compared; else ""
    registry: str = ""


class BrokerHeartbeat(Struct, frozen=True, array_like=True, tag=2, tag_field="tag"):
    """`number`: of the heartbeat that it answers, or 0. From the moment at which that one was sent, the leases of its
    session certainly hold for `holds_s`.
    """

    number: int = 0
    holds_s: float = 0.0


class Reintroduce(Struct, frozen=True, array_like=True, tag=3, tag_field="tag"):
    """The broker does not know this session (it restarted, or the session was silent for too long): say Hello again."""


class Registered(Struct, frozen=True, array_like=True, tag=4, tag_field="tag"):
    request: int
    epoch: int


class Unregistered(Struct, frozen=True, array_like=True, tag=5, tag_field="tag"):
    request: int


class Resolved(Struct, frozen=True, array_like=True, tag=6, tag_field="tag"):
    request: int
    resolution: Resolution


class Changed(Struct, frozen=True, array_like=True, tag=7, tag_field="tag"):
    resolution: Resolution


class Listing(Struct, frozen=True, array_like=True, tag=8, tag_field="tag"):
    request: int
    services: tuple[Resolution, ...]


class Refused(Struct, frozen=True, array_like=True, tag=9, tag_field="tag"):
    """A request that was not carried out; `code` is one of datacenter.errors."""

    request: int
    code: str
    message: str
    hint: str = ""


class Shutdown(Struct, frozen=True, array_like=True, tag=10, tag_field="tag"):
    """The broker ends in order; its sessions wait for its successor."""


class NoRelay(Struct, frozen=True, array_like=True, tag=11, tag_field="tag"):
    """The relay that this session asked for cannot be made now."""

    name: str
    type: ServiceType
    message: str
    hint: str = ""


class DrainRequested(Struct, frozen=True, array_like=True, tag=12, tag_field="tag"):
    """Somebody asked that this instance ends in order: it unregisters, and finishes what runs."""

    instance_id: str


class Draining(Struct, frozen=True, array_like=True, tag=13, tag_field="tag"):
    """The answer to `Drain`: the instances in `service` were asked to end."""

    request: int
    service: Resolution


FromBroker = (
    Welcome
    | BrokerHeartbeat
    | Reintroduce
    | Registered
    | Unregistered
    | Resolved
    | Changed
    | Listing
    | Refused
    | Shutdown
    | NoRelay
    | DrainRequested
    | Draining
)


# --- client -> service (data connection)


class Call(Struct, frozen=True, array_like=True, tag=1, tag_field="tag", gc=False):
    """One call. `args` is a MessagePack array, `keywords` a map; `timeout_ms` is the whole time that the caller gave
    it.
    """

    id: int
    service: str
    method: str
    timeout_ms: int
    args: Raw
    keywords: Raw = NO_KEYWORDS


ToService = Call


# --- service -> client


class Result(Struct, frozen=True, array_like=True, tag=1, tag_field="tag", gc=False):
    id: int
    body: Raw


class Failure(Struct, frozen=True, array_like=True, tag=2, tag_field="tag"):
    """The call ended without a result; `code` is one of datacenter.errors; `kind` the exception's class for code
    "remote".
    """

    id: int
    code: str
    message: str
    hint: str = ""
    kind: str = ""


FromService = Result | Failure


class OutgoingCall(Struct, frozen=True, array_like=True, tag=1, tag_field="tag", gc=False):
    """`Call` as its sender builds it: the arguments are encoded in place, not copied through a Raw."""

    id: int
    service: str
    method: str
    timeout_ms: int
    args: tuple[Any, ...]
    keywords: dict[str, Any]


class OutgoingResult(Struct, frozen=True, array_like=True, tag=1, tag_field="tag", gc=False):
    """`Result` as its sender builds it."""

    id: int
    body: Any


_to_broker: msgspec.msgpack.Decoder[ToBroker] = msgspec.msgpack.Decoder(ToBroker)
_from_broker: msgspec.msgpack.Decoder[FromBroker] = msgspec.msgpack.Decoder(FromBroker)
_to_service = msgspec.msgpack.Decoder(ToService)
_from_service: msgspec.msgpack.Decoder[FromService] = msgspec.msgpack.Decoder(FromService)

#: message -> frame. Raises TypeError for values that MessagePack cannot carry, msgspec.MsgspecError for types it does
#: not know.
encode = msgspec.msgpack.Encoder().encode


def decode_to_broker(frame: bytes) -> ToBroker:
    """Frame -> message at the broker. Raises ProtocolError."""
    try:
        return _to_broker.decode(frame)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"not a control message: {error}") from None


def decode_from_broker(frame: bytes) -> FromBroker:
    """Frame -> message at a session. Raises ProtocolError."""
    try:
        return _from_broker.decode(frame)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"not a broker's message: {error}") from None


def decode_call(frame: bytes) -> Call:
    """Frame -> call at a service. Raises ProtocolError."""
    try:
        return _to_service.decode(frame)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"not a call: {error}") from None


def decode_reply(frame: bytes) -> FromService:
    """Frame -> reply at a client. Raises ProtocolError."""
    try:
        return _from_service.decode(frame)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"not a reply: {error}") from None


#: Ids of calls: bit 63, so that every encoder takes nine bytes, and a number of 31 bits; the bits between are a relay's
#: (broker/native/relay_loop.h).
FIRST_CALL_ID: Final = 1 << 63


def next_call_id(number: int) -> int:
    """The id after this one; after 2^31 calls they begin again."""
    return FIRST_CALL_ID | (number + 1) & 0x7FFF_FFFF


def check_name(what: str, name: str) -> str:
    """Returns `name` if it can name a service or a method, else raises NotServableError."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise NotServableError(
            f"{name!r} cannot name a {what}", "Use 1 to 128 letters, digits, '_' and '-', for instance 'user-store'."
        )
    return name


def split_target(target: str) -> tuple[str, str]:
    """'greeter.hello' -> ('greeter', 'hello'). Raises NotServableError."""
    service, dot, method = target.partition(".") if isinstance(target, str) else ("", "", "")
    if not dot:
        raise NotServableError(
            f"{target!r} does not name a method", "Write SERVICE.METHOD, for instance 'greeter.hello'."
        )
    return check_name("service", service), check_name("method", method)
