"""A TCP forwarder between a client and whom it talks to: it resets connections, and holds what flows, when told to."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from typing import Literal


class Forwarder:
    """Takes connections at `port` and forwards them to `target`, in a thread of its own. Thread-safe."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.accepted = 0
        self._writers: list[asyncio.StreamWriter] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.port = asyncio.run_coroutine_threadsafe(self._start(), self._loop).result()

    async def _start(self) -> int:
        self._flowing = {"requests": asyncio.Event(), "answers": asyncio.Event()}
        self._set_flowing()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        there, to_there = await asyncio.open_connection("127.0.0.1", self.target)
        for end in (writer, to_there):
            end.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writers += [writer, to_there]
        for source, sink, what in ((reader, to_there, "requests"), (there, writer, "answers")):
            task = self._loop.create_task(self._copy(source, sink, self._flowing[what]))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _copy(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, flowing: asyncio.Event) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await source.read(65536):
                await flowing.wait()
                sink.write(data)
                await sink.drain()
        sink.transport.abort()

    def _set_flowing(self) -> None:
        for flowing in self._flowing.values():
            flowing.set()

    def hold(self, what: Literal["requests", "answers"] = "requests") -> None:
        """What the client sends, or is sent, is not forwarded until `go_on`, or until the next reset, after which it
        is lost. Little is read meanwhile: the rest stays with its sender.
        """
        held = threading.Event()

        def hold() -> None:
            self._flowing[what].clear()
            held.set()

        self._loop.call_soon_threadsafe(hold)
        assert held.wait(10)

    def go_on(self) -> None:
        """What was held is forwarded."""
        self._loop.call_soon_threadsafe(self._set_flowing)

    def reset(self) -> None:
        """Every connection ends with a RST, on both sides."""
        done = threading.Event()

        def abort() -> None:
            writers, self._writers = self._writers, []
            for writer in writers:
                writer.transport.abort()
            self._loop.call_later(0.001, self._set_flowing)
            done.set()

        self._loop.call_soon_threadsafe(abort)
        assert done.wait(10)

    def close(self) -> None:
        async def end() -> None:
            self._server.close()
            for task in tuple(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

        self.reset()
        asyncio.run_coroutine_threadsafe(end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
