"""Bad input, made at random: frames that are nearly messages, frames that are nothing, and byte streams that are not
ZeroMQ. Pure.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from datacenter import wire
from datacenter.sockets import bundles

_NAMES = ("shop", "never", "x", "", "a.b", "\x00", "é" * 200, "A" * 128, "A" * 129)
_ENDPOINTS = (
    "tcp://127.0.0.1:1",
    "",
    "tcp://",
    "inproc://x",
    "tcp://*:*",
    "ipc:///dev/null",
    "nonsense",
    "tcp://127.0.0.1:99999",
)
_ODD: Sequence[Any] = (
    None,
    True,
    -1,
    0,
    2**63,
    -(2**63),
    2**64 - 1,
    1.5,
    float("nan"),
    "",
    b"\xff",
    [],
    {},
    "é\x00",
    [[]],
)


def call() -> wire.OutgoingCall:
    """A call that a service would carry out."""
    name, args = random.choice([("pid", ()), ("echo", (b"abc",)), ("add", (1, 2)), ("none", ()), ("add", ("x", None))])
    return wire.OutgoingCall(random.randrange(1 << 32), random.choice(["shop", "other"]), name, 1000, args, {})


def control() -> Any:
    """A control message that a broker would answer."""
    name, number = random.choice(_NAMES), random.randrange(1 << 32)
    instance = wire.Instance(
        f"rogue-{random.randrange(50)}", random.choice(_ENDPOINTS), (wire.Method("pid"),), 1, "host"
    )
    kind: Any = random.choice(["rpc", "topic", "pipeline"])
    makers: Sequence[Callable[[], Any]] = (
        lambda: wire.Hello(random.choice([1, 1, 1, 0, 2, -1]), "0", 1, "host", "fuzz"),
        wire.Heartbeat,
        wire.Bye,
        lambda: wire.Register(number, name, kind, instance),
        lambda: wire.Unregister(number, instance.id),
        lambda: wire.Resolve(number, name, kind, random.random() < 0.5),
        lambda: wire.Unwatch(name),
        lambda: wire.ListServices(number),
    )
    return random.choice(makers)()


def frame(message: Callable[[], Any]) -> bytes:
    """One frame: a mutated message, random bytes, random MessagePack, deep nesting, or a length that lies."""
    way = random.randrange(10)
    if way < 5:
        return mutated(wire.encode(message()))
    if way < 7:
        return random.randbytes(random.choice([0, 1, 2, 8, 40, 200, 3000]))
    if way < 9:
        fields = [value(3) for _ in range(random.randrange(8))]
        return msgspec.msgpack.encode([random.randrange(-1, 12), *fields] if random.random() < 0.7 else value(4))
    return random.choice([nested, lying])()


def bundle(message: Callable[[], Any]) -> bytes:
    """Messages and what is nearly one, together; often cut, with a length that lies, too large, or in one another."""
    frames = [wire.encode(message()) if random.random() < 0.7 else frame(message) for _ in range(random.randrange(90))]
    data = bytearray([bundles.MARK])
    for part in frames:
        length = len(part) if random.random() < 0.98 else random.choice([0, 1, 2**31, 2**32 - 1, len(part) + 1])
        data += length.to_bytes(4, "little") + part
    way = random.randrange(6)
    if way == 0:
        return mutated(bytes(data))
    if way == 1:
        return bytes(data[: random.randrange(1, len(data) + 1)])
    if way == 2:
        return bundles.join([bytes(data), bytes(data)])
    return bytes(data)


def mutated(good: bytes) -> bytes:
    """A message with a few bytes changed, cut, doubled or inserted; sometimes as it was."""
    data = bytearray(good)
    for _ in range(random.choice([0, 1, 1, 2, 5])):
        at = random.randrange(len(data)) if data else 0
        way = random.randrange(4)
        if way == 0 and data:
            data[at] = random.randrange(256)
        elif way == 1:
            del data[at:]
        elif way == 2:
            data[at:at] = random.randbytes(random.randrange(1, 5))
        else:
            data += data[at:]
    return bytes(data)


def value(depth: int) -> Any:
    """Any value that MessagePack carries."""
    way = random.randrange(6)
    if depth <= 0 or way < 3:
        return random.choice(_ODD)
    if way < 5:
        return [value(depth - 1) for _ in range(random.randrange(4))]
    return {str(random.randrange(9)): value(depth - 1) for _ in range(random.randrange(4))}


def nested() -> bytes:
    """Arrays or maps in one another, deeper than any stack."""
    opening = random.choice([b"\x91", b"\x81\xa0", b"\x96\x01\x01\xa4shop\xa3pid\x01\x91", b"\x92\x04\x91"])
    return opening + random.choice([b"\x91", b"\x81\xa1x", b"\xdc\x00\x01"]) * random.choice([100, 2000, 100_000])


def lying() -> bytes:
    """A head that promises far more than there is."""
    head = random.choice(
        [b"\xdd", b"\xdf", b"\xdb", b"\xc6", b"\x96\x01\x01\xdb", b"\x96\x01\x01\xa4shop\xa3pid\x01\xdd"]
    )
    return head + random.choice([b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x00\x10\x00\x00"]) + random.randbytes(3)


_GREETING = b"\xff" + b"\x00" * 8 + b"\x7f\x03\x00NULL" + b"\x00" * 48
_READY = b"\x04\x26\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER\x08Identity\x00\x00\x00\x00"


def stream() -> bytes:
    """What something that is no ZeroMQ peer, or half of one, might send on a TCP connection."""
    return random.choice(
        [
            b"",
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            random.randbytes(random.randrange(1, 500)),
            _GREETING[: random.randrange(1, 64)],
            _GREETING,
            _GREETING + random.randbytes(50),
            _GREETING + _READY,
            _GREETING + _READY + b"\x00\x05abc",  # a frame of 5 bytes, cut
            _GREETING + _READY + b"\x02" + b"\x7f" + b"\xff" * 7,  # a frame of 2^63 bytes
            _GREETING + _READY + b"\x01\x01a" * 300,  # 300 frames of one message
            _GREETING + mutated(_READY),
        ]
    )
