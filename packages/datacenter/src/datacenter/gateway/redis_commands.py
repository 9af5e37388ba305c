"""Which keys a Redis command is about, so that a gateway knows which server it is for. Pure.

What the server says of its own commands (COMMAND) is the table, so commands of newer servers and of modules are known
without a list of ours. A gateway shares its connections among clients: what changes the state of a connection, waits in
it or speaks of no key is not for a shard, and is refused with a reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

#: how the replies of several servers to parts of one command become one reply
Merge = Literal["sum", "list", "ok"]
_SPLIT: dict[bytes, Merge] = {
    b"mget": "list", b"mset": "ok", b"del": "sum", b"unlink": "sum", b"exists": "sum", b"touch": "sum",
}  # fmt: skip
#: commands whose keys follow their count: where the count stands
_COUNTED = {
    b"eval": 2, b"evalsha": 2, b"eval_ro": 2, b"evalsha_ro": 2, b"fcall": 2, b"fcall_ro": 2,
    b"zunion": 1, b"zinter": 1, b"zdiff": 1, b"sintercard": 1, b"zintercard": 1, b"lmpop": 1, b"zmpop": 1,
}  # fmt: skip
_REFUSED_FLAGS = frozenset((b"pubsub", b"blocking"))
_REFUSED = frozenset((b"multi", b"exec", b"watch", b"monitor"))
_CONNECTION = "it changes or holds the connection to the server, and clients share that one"


class NotForShardsError(Exception):
    """Why a command cannot be sent to a shard, as the text of an error reply (without its line end)."""


@dataclass(frozen=True)
class _Command:
    flags: frozenset[bytes]
    first: int
    last: int
    step: int


class CommandTable:
    """What one server said of its commands. `described`: its reply to COMMAND, parsed (bytes for strings)."""

    def __init__(self, described: Sequence[Any]) -> None:
        self._commands: dict[bytes, _Command] = {}
        for entry in described:
            name, _, flags, first, last, step = entry[:6]
            self._commands[name.lower()] = _Command(frozenset(flags), first, last, step)
        #: commands with one key, their first argument, in the two ways that they are written
        self.simple = frozenset(
            spelt for name in self._commands if self._is_simple(name) for spelt in (name, name.upper())
        )

    def keys(self, words: Sequence[bytes]) -> list[int]:
        """Positions of the keys in a command, at least one. Raises NotForShardsError."""
        name = words[0].lower()
        shown = name.decode(errors="replace")[:64]
        command = self._commands.get(name)
        if command is None:
            raise NotForShardsError(f"ERR unknown command '{shown}'")
        if command.flags & _REFUSED_FLAGS or name in _REFUSED:
            raise NotForShardsError(f"ERR '{shown}' cannot be sharded: {_CONNECTION}. Connect to a server itself")
        if name in _COUNTED:
            return self._counted(shown, words, _COUNTED[name])
        if command.flags & {b"movablekeys"} and command.first <= 0:
            raise NotForShardsError(f"ERR '{shown}' cannot be sharded: where its keys are is not known")
        if command.first <= 0:
            raise NotForShardsError(f"ERR '{shown}' cannot be sharded: it names no key. Connect to a server itself")
        last = command.last if command.last >= 0 else len(words) + command.last
        positions = list(range(command.first, min(last, len(words) - 1) + 1, max(1, command.step)))
        if not positions:
            raise NotForShardsError(f"ERR wrong number of arguments for '{shown}' command")
        return positions

    def _is_simple(self, name: bytes) -> bool:
        command = self._commands[name]
        refused = name in _REFUSED or command.flags & _REFUSED_FLAGS
        return not refused and name not in _COUNTED and command.first == command.last == 1

    def _counted(self, shown: str, words: Sequence[bytes], where: int) -> list[int]:
        count = (
            int(words[where]) if len(words) > where and words[where][:8].isdigit() and len(words[where]) <= 8 else -1
        )
        if count == 0:
            raise NotForShardsError(f"ERR '{shown}' cannot be sharded: it names no key. Connect to a server itself")
        if count < 0 or where + count >= len(words):
            raise NotForShardsError("ERR the number of keys is wrong")
        return list(range(where + 1, where + 1 + count))


def hash_tag(key: bytes) -> bytes:
    """The part of a key that decides its shard: between the first { and the next }, if there is something."""
    begin = key.find(b"{")
    end = key.find(b"}", begin + 1) if begin >= 0 else -1
    return key[begin + 1 : end] if end > begin + 1 else key


@dataclass(frozen=True)
class Part:
    """What one server is sent of a command; `places` says which of the command's keys they are, in order."""

    server: str
    words: tuple[bytes, ...]
    places: tuple[int, ...]


def split(words: Sequence[bytes], keys: Sequence[int], servers: Sequence[str]) -> tuple[list[Part], Merge | None]:
    """The parts of a command, `servers` being where each of its keys belongs; and how the replies become one.

    One part and None if they all belong to one. Raises NotForShardsError for a command that cannot be taken apart.
    """
    if len(set(servers)) == 1:
        return [Part(servers[0], tuple(words), tuple(range(len(keys))))], None
    merge = _SPLIT.get(words[0].lower())
    if merge is None:
        shown = words[0].lower().decode(errors="replace")[:64]
        raise NotForShardsError(
            f"CROSSSLOT the keys of '{shown}' belong to different servers; give them a common {{hash tag}}"
        )
    width = 2 if merge == "ok" else 1  # MSET: a key and its value
    parts = []
    for server in dict.fromkeys(servers):
        places = tuple(place for place, owner in enumerate(servers) if owner == server)
        chosen = [word for place in places for word in words[keys[place] : keys[place] + width]]
        parts.append(Part(server, (words[0], *chosen), places))
    return parts, merge


def merged(merge: Merge, parts: Sequence[Part], replies: Sequence[bytes]) -> bytes:
    """One reply out of those to the parts. The first error is the whole reply, as what is missing cannot be told."""
    for reply in replies:
        if reply.startswith((b"-", b"!")):
            return reply
    if merge == "ok":
        return replies[0]
    if merge == "sum":
        return b":%d\r\n" % sum(int(reply[1:]) for reply in replies)
    values: dict[int, bytes] = {}
    for part, reply in zip(parts, replies, strict=True):
        values.update(zip(part.places, _elements(reply), strict=True))
    return b"*%d\r\n" % len(values) + b"".join(values[place] for place in range(len(values)))


def _elements(reply: bytes) -> list[bytes]:
    """The elements of a list of strings, each with its own head: `$3 abc` or `$-1`."""
    at = reply.index(b"\n") + 1
    found = []
    while at < len(reply):
        line_end = reply.index(b"\n", at) + 1
        end = line_end + (
            int(reply[at + 1 : line_end]) + 2 if reply[at : at + 1] == b"$" and reply[at + 1] != 45 else 0
        )
        found.append(reply[at:end])
        at = end
    return found
