"""The main thread of a command or a worker: an event loop that ends in order on SIGTERM and Ctrl-C, and its log."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from datacenter import libuv_pipe, runtime
from datacenter.reactor import SelectorLoop
from datacenter.sockets import descriptor_limit, fork
from datacenter.sockets.ledger import Ledger
from leakline.link_targets import kind_of

log = logging.getLogger("datacenter")

EXECUTOR = "datacenter-executor"
PATIENCE_S = 0.2
_handlers: dict[int, tuple[Any, Any]] = {}  # of the signals that end a command: what was there before, and is now
LOOP_COST = 10  # uvloop's: epoll, io_uring, two pipes, eventfd, a socket pair, and one for a moment


def set_up_logging(verbose: int) -> None:
    """Warnings by default, states with -v, every event with -vv; on stderr."""
    level = (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    logging.basicConfig(level=level, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")


def run(
    main: Callable[[asyncio.Event], Awaitable[None]],
    signals: Sequence[signal.Signals] = (signal.SIGTERM, signal.SIGINT),
) -> None:
    """Runs `main(stop)` in a new loop (uvloop where installed). Each of `signals` sets `stop`; a second one ends the
    wait at once.
    """
    descriptor_limit.require(LOOP_COST, "The command's event loop")
    ledger = Ledger.open()
    before = _open_numbers()
    with descriptor_limit.typed("the command's event loop"):
        loop = _new_loop()
    executor = concurrent.futures.ThreadPoolExecutor(thread_name_prefix=EXECUTOR)
    loop.set_default_executor(executor)
    work = _run(main, ledger, before, signals)
    try:
        with descriptor_limit.typed("the command"):
            loop.run_until_complete(work)
    finally:
        work.close()  # where the loop could not even begin
        executor.shutdown(wait=False, cancel_futures=True)
        with contextlib.suppress(RuntimeError):  # uvloop's that had no descriptor to begin with believes that it runs
            loop.close()
        ledger.close()
    _leave_stuck_threads()


def _leave_stuck_threads() -> None:
    """Ends the process if code that was handed to the loop's executor does not return: Python would wait for it."""
    threads = [thread for thread in threading.enumerate() if thread.name.startswith(EXECUTOR)]
    end = time.monotonic() + PATIENCE_S
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    stuck = [thread.name for thread in threads if thread.is_alive()]
    if stuck:
        log.warning("left behind, still running: %s", ", ".join(stuck))
        runtime.close_all()
        logging.shutdown()
        sys.stdout.flush()
        os._exit(0)


async def _run(
    main: Callable[[asyncio.Event], Awaitable[None]],
    ledger: Ledger,
    before: set[int],
    signals: Sequence[signal.Signals],
) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    task = asyncio.ensure_future(main(stop))

    def ask_to_stop() -> None:
        if stop.is_set():
            task.cancel()
        stop.set()

    for number in signals:
        before_us = signal.getsignal(number)
        loop.add_signal_handler(number, ask_to_stop)
        _handlers.setdefault(number, (before_us, signal.getsignal(number)))
    # No other thread runs yet: what is new since the loop was made is the loop's own.
    for descriptor in _open_numbers() - before if before else ():
        ledger.register(descriptor, _kind(descriptor), "event loop")
    try:
        await task
    except asyncio.CancelledError:
        if not stop.is_set():
            raise
    finally:
        await loop.shutdown_asyncgens()  # in this run: another one would need descriptors again, under uvloop


def _end_by_signals() -> None:
    """A forked child has no loop that would hear of them: SIGTERM ends it, as multiprocessing's terminate() expects."""
    with contextlib.suppress(ValueError):  # not in the main thread: C code forked, and nobody told Python
        for number, (before_us, ours) in _handlers.items():
            if before_us is not None and signal.getsignal(number) is ours:
                signal.signal(number, before_us)
    _handlers.clear()


fork.in_child(_end_by_signals)


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
        import uvloop.loop
    except ImportError:
        return SelectorLoop()
    with libuv_pipe.ready_for(uvloop.loop.__file__):
        return uvloop.new_event_loop()


def _open_numbers() -> set[int]:
    """Empty where there is no descriptor for the look: then the loop's own are in no ledger."""
    try:
        numbers = {int(name) for name in os.listdir("/proc/self/fd")}
    except OSError:
        return set()
    return {number for number in numbers if os.path.lexists(f"/proc/self/fd/{number}")}


def _kind(number: int) -> str:
    return kind_of(os.readlink(f"/proc/self/fd/{number}")) or "unix"  # only sockets have no kind in their link
