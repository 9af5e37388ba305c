"""What goes to which shard. The table is a real server's."""

from __future__ import annotations

import socket
import tempfile

import hiredis
import pytest

from datacenter.gateway.redis_client import answered_here
from datacenter.gateway.redis_commands import CommandTable, NotForShardsError, Part, hash_tag, merged, split
from datacenter.testing.launcher import Launcher
from redis_servers import start_redis


@pytest.fixture(scope="module")
def table() -> CommandTable:
    with tempfile.TemporaryDirectory() as folder, Launcher(cwd=folder) as launcher:
        _, port = start_redis(launcher)
        reader = hiredis.Reader()
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(b"COMMAND\r\n")
            while (described := reader.gets()) is False:
                reader.feed(connection.recv(1 << 20))
    return CommandTable(described)


KEYS = [
    (b"GET a", [1]),
    (b"set a 1", [1]),
    (b"MGET a b c", [1, 2, 3]),
    (b"MSET a 1 b 2", [1, 3]),
    (b"DEL a b", [1, 2]),
    (b"HSET h f v", [1]),
    (b"OBJECT ENCODING a", None),
    (b"EVAL return 2 a b c", [3, 4]),
    (b"ZUNION 2 a b WEIGHTS 1 2", [2, 3]),
    (b"ZUNIONSTORE out 2 a b", [1]),
    (b"SINTER a b", [1, 2]),
    (b"BITOP AND out a b", [2, 3, 4]),
    (b"RENAME a b", [1, 2]),
]


@pytest.mark.parametrize(("command", "positions"), KEYS, ids=[command.decode() for command, _ in KEYS])
def test_the_keys_of_a_command(table: CommandTable, command: bytes, positions: list[int] | None) -> None:
    words = command.split()
    if positions is None:
        with pytest.raises(NotForShardsError):
            table.keys(words)
    else:
        assert table.keys(words) == positions


def test_a_simple_command_has_one_key_and_it_comes_first(table: CommandTable) -> None:
    assert {b"get", b"GET", b"set", b"SET", b"HGETALL", b"expire"} <= table.simple
    for name in table.simple:
        assert table.keys([name, b"a", b"1", b"b", b"c"]) == [1]
    assert not table.simple & {command.split()[0] for command in REFUSED if command not in (b"GET", b"NOSUCH a")}


REFUSED = [b"MULTI", b"SUBSCRIBE a", b"BLPOP a 0", b"KEYS *", b"FLUSHALL", b"CONFIG GET save", b"NOSUCH a", b"GET"]
REFUSED += [b"EVAL x 0", b"EVAL x 5 a", b"EVAL x -1 a", b"SCAN 0", b"MONITOR", b"WATCH a"]


@pytest.mark.parametrize("command", REFUSED, ids=[command.decode() for command in REFUSED])
def test_what_is_for_no_shard_is_refused_with_a_reason(table: CommandTable, command: bytes) -> None:
    with pytest.raises(NotForShardsError, match="ERR"):
        table.keys(command.split())


def test_a_command_is_taken_apart_and_its_replies_put_together() -> None:
    parts, merge = split([b"MGET", b"a", b"b", b"c"], [1, 2, 3], ["x", "y", "x"])
    assert parts == [Part("x", (b"MGET", b"a", b"c"), (0, 2)), Part("y", (b"MGET", b"b"), (1,))]
    assert merge == "list"
    reply = merged(merge, parts, [b"*2\r\n$1\r\n1\r\n$-1\r\n", b"*1\r\n$4\r\n\r\n\r\n\r\n"])
    assert reply == b"*3\r\n$1\r\n1\r\n$4\r\n\r\n\r\n\r\n$-1\r\n"
    parts, merge = split([b"MSET", b"a", b"1", b"b", b"2"], [1, 3], ["x", "y"])
    assert [part.words for part in parts] == [(b"MSET", b"a", b"1"), (b"MSET", b"b", b"2")]
    assert merge == "ok"
    assert merged("ok", parts, [b"+OK\r\n", b"+OK\r\n"]) == b"+OK\r\n"
    assert merged("ok", parts, [b"+OK\r\n", b"-ERR gone\r\n"]) == b"-ERR gone\r\n"
    assert merged("sum", parts, [b":1\r\n", b":3\r\n"]) == b":4\r\n"
    whole, merge = split([b"RENAME", b"a", b"b"], [1, 2], ["x", "x"])
    assert (len(whole), merge) == (1, None)
    with pytest.raises(NotForShardsError, match="CROSSSLOT"):
        split([b"RENAME", b"a", b"b"], [1, 2], ["x", "y"])


def test_a_hash_tag_decides() -> None:
    assert [hash_tag(key) for key in (b"a", b"{user}:1", b"x{user}y{z}", b"{}a", b"{a", b"}a{")] == [
        b"a", b"user", b"user", b"{}a", b"{a", b"}a{",
    ]  # fmt: skip


def test_what_needs_no_server_is_answered_here() -> None:
    assert answered_here([b"PING"]) == b"+PONG\r\n"
    assert answered_here([b"ping", b"hi"]) == b"$2\r\nhi\r\n"
    assert answered_here([b"SELECT", b"0"]) == b"+OK\r\n"
    assert answered_here([b"SELECT", b"1"]).startswith(b"-ERR")
    assert answered_here([b"GET", b"a"]) == b""
