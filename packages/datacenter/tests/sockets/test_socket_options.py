"""SocketOptions reach the socket, and say no to what is not one."""

from __future__ import annotations

import msgspec
import pytest
import zmq

from datacenter.options import TABLE
from datacenter.sockets import SocketContext, SocketOptions


def test_defaults_reach_the_socket(context: SocketContext) -> None:
    raw = context.socket(zmq.ROUTER, owner="options", router_mandatory=True, routing_id=b"me").raw
    expected = {
        zmq.LINGER: 0,
        zmq.HEARTBEAT_IVL: 1000,
        zmq.HEARTBEAT_TIMEOUT: 3000,
        zmq.HEARTBEAT_TTL: 3000,
        zmq.RECONNECT_IVL: 100,
        zmq.RECONNECT_IVL_MAX: 2000,
        zmq.HANDSHAKE_IVL: 5000,
        zmq.CONNECT_TIMEOUT: 3000,
        zmq.MAXMSGSIZE: 16 * 1024 * 1024,
        zmq.SNDHWM: 1000,
        zmq.RCVHWM: 1000,
        zmq.IMMEDIATE: 0,
        zmq.SNDTIMEO: -1,
        zmq.RCVTIMEO: -1,
        zmq.BACKLOG: 1024,
        zmq.TCP_KEEPALIVE: 1,
        zmq.TCP_KEEPALIVE_IDLE: 60,
        zmq.TCP_KEEPALIVE_INTVL: 10,
        zmq.TCP_KEEPALIVE_CNT: 6,
        zmq.ROUTING_ID: b"me",
    }
    assert {name: raw.getsockopt(name) for name in expected} == expected


def test_overrides_go_before_options_before_the_contexts_own() -> None:
    with SocketContext("layers", options=SocketOptions(send_high_water=1, receive_high_water=1, backlog=1)) as context:
        options = context.options.replace(receive_high_water=2, backlog=2)
        layered = context.socket(zmq.DEALER, owner="layers", options=options, backlog=3)
        plain = context.socket(zmq.DEALER, owner="plain")
        assert [layered.raw.getsockopt(name) for name in (zmq.SNDHWM, zmq.RCVHWM, zmq.BACKLOG)] == [1, 2, 3]
        assert plain.raw.getsockopt(zmq.BACKLOG) == 1


def test_an_unknown_option_is_named_with_the_known_ones(context: SocketContext) -> None:
    with pytest.raises(TypeError, match=r"no socket option lingers; there are linger_ms"):
        context.socket(zmq.DEALER, owner="typo", lingers=1)


def test_a_value_out_of_range_leaves_nothing_open(context: SocketContext) -> None:
    with pytest.raises(zmq.ZMQError):
        context.socket(zmq.DEALER, owner="range", heartbeat_ttl_ms=10_000_000)
    assert context.statistics().sockets == 0


def test_immutable() -> None:
    with pytest.raises(AttributeError):
        SocketOptions().linger_ms = 1  # type: ignore[misc]


def test_every_field_is_in_the_table_with_its_default() -> None:
    fields = {field.name: field.default for field in msgspec.structs.fields(SocketOptions)}
    assert fields == {name: entry.default for (group, name), entry in TABLE.items() if group == "sockets"}
