"""Children that methods fork in `datacenter serve`, whose loop and signals are the command's: they end as they should,
and the service goes on.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from datacenter import Client
from datacenter.sockets.ledger_compare import compare_with_proc
from datacenter.testing import Launcher

SHOP = """
import asyncio, multiprocessing, os, sys, time
from datacenter import Service

shop = Service("shop")


def sleeps(lives):
    lives.set()
    time.sleep(60)


@shop.method
def terminates(kind: str) -> int:
    context = multiprocessing.get_context(kind)
    lives = context.Event()
    process = context.Process(target=sleeps, args=(lives,))
    process.start()
    lives.wait(30)
    process.terminate()
    process.join(20)
    status = process.exitcode
    process.kill()
    return -999 if status is None else status


@shop.method
async def terminates_in_loop() -> int:
    context = multiprocessing.get_context("fork")
    lives = context.Event()
    process = context.Process(target=sleeps, args=(lives,))
    process.start()
    await asyncio.to_thread(lives.wait, 30)
    process.terminate()
    await asyncio.to_thread(process.join, 20)
    status = process.exitcode
    process.kill()
    return -999 if status is None else status


@shop.method
async def ends(how: str) -> int:
    pid = os.fork()
    if pid == 0:
        if how == "exit":
            sys.exit(7)
        if how == "error":
            raise RuntimeError("deliberate")
        return 5
    for _ in range(2000):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        await asyncio.sleep(0.01)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    return -999
"""


@pytest.mark.parametrize("workers", ["0", "1"])
def test_children_end_by_signals_and_with_their_method(tmp_path: Path, workers: str) -> None:
    (tmp_path / "shop.py").write_text(SHOP)
    with Launcher(cwd=tmp_path) as launch:
        broker = launch.broker()
        service = launch.service("shop:shop", broker, options=("--workers", workers), ready_s=60.0)
        with Client(broker.address) as client:
            for kind in ("fork", "spawn", "forkserver"):
                assert client.call("shop.terminates", kind, deadline_s=60) == -15, kind
            assert client.call("shop.terminates_in_loop", deadline_s=60) == -15
            for how, status in (("exit", 7), ("error", 1), ("return", 0)):
                assert client.call("shop.ends", how, deadline_s=60) == status, how
            assert client.call("shop.terminates", "fork", deadline_s=60) == -15
            if workers == "0":
                found = compare_with_proc(service.pid)
                assert found.exact, found.reason
        service.signal(15)
        assert service.wait() == 0, service.errors
