"""One socket for all questions.

python -m casebook.zj_socket_per_question.fixed
"""

from __future__ import annotations

import zmq
from casebook.nearby import Context
from casebook.zj_socket_per_question.broken import Ask, main


def asker(context: Context, endpoint: str) -> Ask:
    """Questions of one thread, one after the other, over one connection."""
    socket = context.socket(zmq.DEALER)
    socket.linger = 0
    socket.connect(endpoint)

    def ask() -> bytes:
        socket.send(b"where?")
        return socket.recv()

    return ask


if __name__ == "__main__":
    main(asker)
