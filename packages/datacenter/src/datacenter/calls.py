"""One call in flight, as its client sees it: it ends exactly once, by its deadline, with a result or a typed error."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

import msgspec

from datacenter import wire
from datacenter.checks import MAX_SECONDS
from datacenter.errors import (
    CATALOGUE,
    BadArgumentsError,
    BadResultError,
    DatacenterError,
    LostError,
    RemoteError,
)

MAX_DEADLINE_S: Final = MAX_SECONDS
_decode_any = msgspec.msgpack.Decoder().decode


class Pending:
    """`made` and `deadline` are on the loop's clock. `retry(pending, error)` is asked when its connection ended: it may
    send the call again. `refused_by`: the endpoints that were too busy for it, in order.
    """

    __slots__ = (
        "deadline",
        "decode",
        "frame",
        "future",
        "id",
        "made",
        "refused_by",
        "resends",
        "retry",
        "sent",
        "target",
    )

    def __init__(
        self,
        number: int,
        target: str,
        frame: bytes,
        made: float,
        deadline: float,
        future: asyncio.Future[Any],
        decode: Callable[[Any], Any],
        retry: Callable[[Pending, LostError], bool],
    ) -> None:
        self.id = number
        self.target = target
        self.frame = frame
        self.made = made
        self.deadline = deadline
        self.future = future
        self.decode = decode
        self.retry = retry
        self.sent = False
        self.resends = 0
        self.refused_by: tuple[str, ...] = ()

    def answer(self, reply: wire.FromService) -> None:
        """Ends the call with what the service said. Late, double or cancelled ones change nothing."""
        if self.future.done():
            return
        if type(reply) is wire.Result:
            try:
                value = self.decode(reply.body)
            except Exception as error:  # also of a type's own __post_init__
                self.fail(
                    BadResultError(
                        f"the result of {self.target} is not of the type asked for: {error}",
                        "Pass the type that the service declares as returns=…",
                    )
                )
            else:
                self.future.set_result(value)
        else:
            self.fail(error_of(reply))  # type: ignore[arg-type]

    def fail(self, error: DatacenterError, *, quietly: bool = False) -> None:
        """Ends the call with an error. `quietly`: nobody has to look at it (its client was closed).

        The future of a loop that has ended can only be left alone: nobody can wait for it any more.
        """
        if not self.future.done() and not self.future.get_loop().is_closed():
            self.future.set_exception(error)
            if quietly:
                self.future.exception()  # marks it as seen

    def lost(self, error: LostError) -> None:
        """Its connection ended after it was sent: sent again if that is allowed, else lost."""
        if not self.future.done() and not self.retry(self, error):
            self.fail(error)


def decoder(type_: Any) -> Callable[[Any], Any]:
    """The decoder of one result type (None: plain values). Raises BadArgumentsError for what is no such type."""
    if type_ is None:
        return _decode_any
    try:
        return _cached_decoder(type_)
    except TypeError as error:
        raise BadArgumentsError(
            f"returns={type_!r} is not a type that results can be decoded into: {error}",
            "Pass a type such as str, list[int], a dataclass or a msgspec.Struct.",
        ) from None


@lru_cache(maxsize=1024)
def _cached_decoder(type_: Any) -> Callable[[Any], Any]:
    return msgspec.msgpack.Decoder(type_).decode


def error_of(failure: wire.Failure) -> DatacenterError:
    """The typed error that a service's failure stands for."""
    if failure.code == RemoteError.code:
        return RemoteError(failure.message, failure.hint, failure.kind)
    return CATALOGUE.get(failure.code, DatacenterError)(failure.message, failure.hint)


def checked_deadline(seconds: float) -> float:
    """`seconds` if it can be a deadline, 0 for less than none, else raises BadArgumentsError."""
    if isinstance(seconds, (int, float)) and not isinstance(seconds, bool) and seconds <= MAX_DEADLINE_S:  # NaN is not
        return seconds if seconds > 0 else 0.0
    raise BadArgumentsError(
        f"deadline_s={seconds!r} is no number of seconds up to {MAX_DEADLINE_S:.0f}",
        "Give a deadline, for instance 10.",
    )
