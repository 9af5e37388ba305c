"""A pool of daemon threads for methods that block.

concurrent.futures.ThreadPoolExecutor is not used for them: its threads are joined when the interpreter ends, so that
one method which blocks for ever would keep a service from ever ending.
"""

from __future__ import annotations

import concurrent.futures
import queue
import threading
from collections.abc import Callable
from typing import Any

from datacenter.sockets import fork


class DaemonPool:
    """At most `size` threads, started when they are needed. Thread-safe. In a child that the work
    itself forks, the thread ends with the work, and the child with it.
    """

    def __init__(self, size: int, name: str) -> None:
        self._epoch = fork.current()
        self._size = size
        self._name = name
        self._lock = threading.RLock()  # its holder may come again, in a finaliser
        self._work: queue.SimpleQueue[tuple[concurrent.futures.Future[Any], Callable[[], Any]] | None] = (
            queue.SimpleQueue()
        )
        self._threads = 0
        self._idle = threading.Semaphore(0)
        self._closed = False

    def submit(self, work: Callable[[], Any]) -> concurrent.futures.Future[Any]:
        """Runs `work` in a thread as soon as one is free. RuntimeError after `close`, and when it has no thread and can
        start none.
        """
        future = concurrent.futures.Future[Any]()
        with self._lock:
            if self._closed:
                raise RuntimeError("the pool is closed")
            self._work.put((future, work))
            if not self._idle.acquire(blocking=False) and self._threads < self._size:
                self._start_one()
        return future

    def _start_one(self) -> None:
        thread = threading.Thread(target=self._run, name=f"{self._name}-{self._threads + 1}", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            if self._threads:
                return  # the others come to it
            self._work.get_nowait()
            raise
        self._threads += 1

    def waiting(self) -> int:
        """Work that no thread has begun, roughly."""
        return self._work.qsize()

    def close(self) -> None:
        """Takes no more work; what waits is cancelled, what runs is left to itself. Idempotent; returns at once."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            while True:
                try:
                    waiting = self._work.get_nowait()
                except queue.Empty:
                    break
                if waiting is not None:
                    waiting[0].cancel()
            for _ in range(self._threads):
                self._work.put(None)

    def _run(self) -> None:
        while True:
            item = self._work.get()
            if item is None:
                return
            future, work = item
            if future.set_running_or_notify_cancel():
                try:
                    result = work()
                except BaseException as error:
                    if fork.ended(self._epoch):
                        raise
                    future.set_exception(error)
                else:
                    if fork.ended(self._epoch):
                        return  # the work forked, and this is the child: the call is its parent's, and the child ends
                    future.set_result(result)
            del item, future, work  # nothing of a call is kept while the thread waits for the next one
            self._idle.release()
