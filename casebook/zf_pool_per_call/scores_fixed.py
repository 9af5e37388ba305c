"""The pool put right: one for the process, ended by `with`."""

from __future__ import annotations

import multiprocessing
import multiprocessing.pool

from casebook.pace import requests


def score(pool: multiprocessing.pool.Pool, values: list[int]) -> int:
    return sum(pool.map(abs, values))


def main() -> None:
    with multiprocessing.get_context("fork").Pool(1) as pool:
        for request in requests(per_second=3):
            score(pool, [request, -request])


if __name__ == "__main__":
    main()
