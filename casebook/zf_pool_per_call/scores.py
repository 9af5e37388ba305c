"""A pool of processes for each computation; it is neither closed nor ended. Its pipes and its workers stay."""

from __future__ import annotations

import multiprocessing
import multiprocessing.pool

from casebook.pace import requests

pools: list[multiprocessing.pool.Pool] = []


def score(values: list[int]) -> int:
    pool = multiprocessing.get_context("fork").Pool(1)  # casebook: pool
    pools.append(pool)
    return sum(pool.map(abs, values))


def main() -> None:
    for request in requests(per_second=3):
        score([request, -request])


if __name__ == "__main__":
    main()
