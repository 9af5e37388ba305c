"""Incident H put right: each part closes what it opened, libzmq's context before anything it may need.

python -m casebook.h_closed_by_somebody_else.fixed
"""

from __future__ import annotations

import atexit

from casebook.h_closed_by_somebody_else import broken


def close_ours() -> None:
    """The socket and its context: this returns when libzmq's threads have ended."""
    for client in broken._kept:
        client.close()
        client.context.term()


def main() -> None:
    atexit.register(broken.flush)
    atexit.register(close_ours)
    broken.work()


if __name__ == "__main__":
    main()
