"""Launches brokers, services and other programs for one test, and ends all of them when it is left."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TypedDict, TypeVar

from datacenter.testing.ports import free_port
from datacenter.testing.processes import READY_S, NotReadyError, Process

# Like the command that pip installs, wherever that lies.
_COMMAND = (
    sys.executable,
    "-c",
    "import sys; sys.argv[0] = 'datacenter'; from datacenter.commands import main; main()",
)
_ATTEMPTS = 5


class RunningBroker(Process):
    """`address` is where it listens."""

    address = ""


class RunningService(Process):
    """`endpoint` is where it listens; `ready_at` (time.monotonic()) is when it said that it serves."""

    endpoint = ""
    ready_at = 0.0


_AnyProcess = TypeVar("_AnyProcess", bound=Process)


class _Surroundings(TypedDict):
    cwd: str | os.PathLike[str] | None
    environment: dict[str, str]
    network: str


class Launcher:
    """A context manager. Ends what it started, youngest first. `cwd`: where the services' modules are imported from.

    Use it in one thread, which lives as long as the processes (see Process).
    """

    def __init__(
        self,
        *,
        cwd: str | os.PathLike[str] | None = None,
        environment: Mapping[str, str] | None = None,
        network: str = "",
    ) -> None:
        self.cwd = cwd
        self.environment = dict(environment or {})
        self.network = network
        self._started: list[Process] = []

    def broker(
        self, port: int = 0, *, host: str = "127.0.0.1", options: Sequence[str] = (), network: str | None = None
    ) -> RunningBroker:
        """`datacenter up`, ready. With port 0 at a free one. Raises NotReadyError with what it said instead."""
        for attempt in range(_ATTEMPTS):
            address = f"tcp://{host}:{port or free_port()}"
            words = (*_COMMAND, "up", "--listen", address, *options)
            broker = self._add(RunningBroker(words, **self._surroundings(network)))
            try:
                _, found = broker.wait_line(r"^broker ready at (\S+)$")
            except NotReadyError:
                # Only a port of our own choice may have been taken by somebody else in between.
                if port or attempt == _ATTEMPTS - 1 or "is taken" not in broker.errors:
                    raise
                continue
            broker.address = found[1]
            return broker
        raise AssertionError("not reached")

    def service(
        self,
        target: str,
        broker: str | RunningBroker,
        *,
        listen: str = "tcp://127.0.0.1:0",
        options: Sequence[str] = (),
        network: str | None = None,
        ready_s: float = READY_S,
    ) -> RunningService:
        """`datacenter serve TARGET`, registered and serving. Raises NotReadyError with what it said instead."""
        service = self.start_service(target, broker, listen=listen, options=options, network=network)
        service.ready_at, found = service.wait_line(r"^serving .* at (\S+)$", ready_s)
        service.endpoint = found[1]
        return service

    def start_service(
        self,
        target: str,
        broker: str | RunningBroker,
        *,
        listen: str = "tcp://127.0.0.1:0",
        options: Sequence[str] = (),
        network: str | None = None,
    ) -> RunningService:
        """Like `service`, but does not wait until it is ready."""
        address = broker if isinstance(broker, str) else broker.address
        words = (*_COMMAND, "serve", target, "--broker", address, "--listen", listen, *options)
        return self._add(RunningService(words, **self._surroundings(network)))

    def command(self, *words: str, network: str | None = None) -> Process:
        """Any other subcommand of `datacenter`; not waited for."""
        return self._add(Process((*_COMMAND, *words), **self._surroundings(network)))

    def python(self, *words: str, network: str | None = None) -> Process:
        """A Python program: a script's path or `-c`, `-m`, and its arguments; not waited for."""
        return self._add(Process((sys.executable, *words), **self._surroundings(network)))

    def program(self, *words: str, network: str | None = None) -> Process:
        """Any other program; not waited for."""
        return self._add(Process(words, **self._surroundings(network)))

    def release(self, process: Process) -> None:
        """Ends one process now."""
        process.release()
        if process in self._started:
            self._started.remove(process)

    def close(self) -> None:
        """Ends every process that is left. Idempotent."""
        while self._started:
            self._started.pop().release()

    def __enter__(self) -> Launcher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    def _surroundings(self, network: str | None) -> _Surroundings:
        where = self.network if network is None else network
        return {"cwd": self.cwd, "environment": self.environment, "network": where}

    def _add(self, process: _AnyProcess) -> _AnyProcess:
        self._started.append(process)
        return process
