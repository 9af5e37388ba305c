"""A socket is made for each question, and closed on every path: nothing leaks yet.

python -m casebook.zj_socket_per_question.broken
"""

from __future__ import annotations

from collections.abc import Callable

import zmq
from casebook.nearby import Context, answering_server, paced, ready

PER_S = 40
Ask = Callable[[], bytes]


def asker(context: Context, endpoint: str) -> Ask:
    """Something that asks one question, and returns its answer."""

    def ask() -> bytes:
        with context.socket(zmq.DEALER) as question:
            question.linger = 0
            question.connect(endpoint)
            question.send(b"where?")
            return question.recv()

    return ask


def main(make_asker: Callable[[Context, str], Ask] = asker) -> None:
    ask = make_asker(zmq.Context(), answering_server())
    ready()
    for _ in paced(PER_S):
        ask()


if __name__ == "__main__":
    main()
