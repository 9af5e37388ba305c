"""A job is a child process; a pidfd tells when it has ended. The child is waited for, its pidfd is not closed."""

from __future__ import annotations

import os
import select

from casebook.pace import requests


def run(job: list[str]) -> int:
    child = os.posix_spawnp(job[0], job, os.environ)
    handle = os.pidfd_open(child)  # casebook: handle
    ended, _, _ = select.select([handle], [], [], 10.0)
    if not ended:
        raise TimeoutError(f"{job} takes longer than 10 s")
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def main() -> None:
    for _request in requests(per_second=8):
        run(["true"])


if __name__ == "__main__":
    main()
