"""Real ZooKeeper servers for tests: one alone or an ensemble, each a JVM on free ports with its data in a folder.

    with Ensemble(tmp_path, servers=3) as ensemble:
        broker = launch.broker(options=["--registry", ensemble.url("/test")])
        ensemble.leader().kill()                            # an outage
        ...
        ensemble.servers[0].start()                         # back, with the data it had

Needs Debian's `zookeeper` (or its `libzookeeper-java`) and a Java runtime. A JVM takes about a second of processor time
to start and 70 MB: share one ensemble where you can, and give each test a path of its own.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final

from datacenter.testing.ports import free_port
from datacenter.testing.processes import NotReadyError, Process

JAR: Final = Path("/usr/share/java/zookeeper.jar")
MAIN: Final = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
#: tests want short sessions: a server grants 2 to 20 ticks
TICK_MS: Final = 250
READY_S: Final = 60.0
_ATTEMPTS: Final = 3
#: a small heap, one collector thread and the quick compiler: the start is half as long, and three fit two cores
_JAVA: Final = ("-Xmx96m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto")
#: warnings go to standard error
_LOG: Final = ("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-Dorg.slf4j.simpleLogger.showDateTime=true")
_CLASSES: Final = f"{JAR}:{JAR.with_name('slf4j-simple.jar')}"


def available() -> str:
    """ "" if ZooKeeper can be started here, else what is missing and how to have it."""
    missing = [] if JAR.exists() else [str(JAR)]
    missing += [] if shutil.which("java") else ["java"]
    return f"no {' and no '.join(missing)}: apt-get install zookeeper default-jre-headless" if missing else ""


class ZooKeeperServer:
    """One server of an ensemble. `start`, `kill`, `stop`, and what it says of itself; its data stays over restarts.

    network: path of a network namespace to run in (needs root); it is asked from there by whoever may reach it.
    """

    def __init__(self, number: int, folder: Path, host: str, port: int, network: str = "") -> None:
        self.number = number
        self.folder = folder
        self.host = host
        self.port = port
        self.network = network
        self.process: Process | None = None

    @property
    def address(self) -> str:
        """HOST:PORT for clients."""
        return f"{self.host}:{self.port}"

    @property
    def pid(self) -> int:
        """Of the JVM that runs. Raises AssertionError if none does."""
        assert self.process is not None, f"{self!r} does not run"
        return self.process.pid

    def start(self) -> None:
        """Starts the JVM; it is not waited for (Ensemble.wait_ready). Nothing happens if it runs."""
        if self.process is not None and self.process.running:
            return
        self._forget()
        words = ("java", *_JAVA, *_LOG, "-cp", _CLASSES, MAIN, str(self.folder / "zoo.cfg"))
        self.process = Process(words, cwd=self.folder, network=self.network)

    def kill(self) -> None:
        """kill -9, and waits until it is gone."""
        if self.process is not None:
            self.process.kill()
            self._forget()

    def signal(self, number: int) -> None:
        """SIGSTOP, SIGCONT, …"""
        assert self.process is not None, f"{self!r} does not run"
        self.process.signal(number)

    def ask(self, word: str, timeout_s: float = 2.0) -> str:
        """The answer to one of ZooKeeper's four-letter words (ruok, srvr, cons, dump, wchs, …). "" if it gives none."""
        try:
            with socket.create_connection((self.host, self.port), timeout=timeout_s) as connection:
                connection.sendall(word.encode())
                answer = b""
                while part := connection.recv(65536):
                    answer += part
        except OSError:
            return ""
        return answer.decode(errors="replace")

    def mode(self) -> str:
        """`standalone`, `leader`, `follower`; "" while it serves nobody."""
        for line in self.ask("srvr").splitlines():
            if line.startswith("Mode:"):
                return line.partition(":")[2].strip()
        return ""

    def connections(self) -> list[str]:
        """One line for each connection of a client that has a session: `/127.0.0.1:40000[1](…,sid=…)`."""
        return [line for line in self.ask("cons").splitlines() if "sid=" in line]

    def errors(self) -> str:
        """What the JVM wrote to standard error."""
        return "" if self.process is None else self.process.errors

    def __repr__(self) -> str:
        state = "running" if self.process is not None and self.process.running else "not running"
        return f"<ZooKeeperServer {self.number} at {self.address}, {state}>"

    def _forget(self) -> None:
        if self.process is not None:
            self.process.release()
            self.process = None


class Ensemble:
    """A context manager: so many servers, ready when it is entered, ended and gone when it is left.

    folder: where they keep their data. hosts: the address of each (default: 127.0.0.1), networks: the namespace of each
    (needs root). tick_ms: ZooKeeper's tick; it grants sessions of 2 to 20 of them, 0.5 to 5 s by default.
    Use it in one thread, which lives as long as the servers (see Process).
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        servers: int = 1,
        hosts: Sequence[str] = (),
        networks: Sequence[str] = (),
        tick_ms: int = TICK_MS,
    ) -> None:
        self.folder = Path(folder)
        self.tick_ms = tick_ms
        self.servers: list[ZooKeeperServer] = []
        self._count = servers
        self._hosts = list(hosts) or ["127.0.0.1"] * servers
        self._networks = list(networks) or [""] * servers

    @property
    def hosts(self) -> str:
        """HOST:PORT,HOST:PORT,… as ZooKeeper's clients take it."""
        return ",".join(server.address for server in self.servers)

    def url(self, path: str = "") -> str:
        """zookeeper://HOST:PORT,…/path, as `datacenter up --registry` takes it."""
        return f"zookeeper://{self.hosts}{path}"

    def __enter__(self) -> Ensemble:
        problem = available()
        if problem:
            raise NotReadyError(problem)
        for attempt in range(_ATTEMPTS):
            try:
                self._prepare()
                for server in self.servers:
                    server.start()
                self.wait_ready()
            except BaseException as error:
                taken = any("Address already in use" in server.errors() for server in self.servers)
                self.close()
                if not taken or not isinstance(error, NotReadyError) or attempt == _ATTEMPTS - 1:
                    raise
            else:
                return self
        raise AssertionError("not reached")

    def wait_ready(self, deadline_s: float = READY_S, servers: Sequence[ZooKeeperServer] | None = None) -> None:
        """Returns when each of `servers` (default: all that run) serves clients. Raises NotReadyError."""
        wanted = [server for server in self.servers if server.process is not None] if servers is None else list(servers)
        end = time.monotonic() + deadline_s
        while not all(server.mode() for server in wanted):
            dead = [server for server in wanted if server.process is None or not server.process.running]
            if dead or time.monotonic() > end:
                said = "\n".join(f"{server!r}:\n{server.errors()[-2000:]}" for server in dead or wanted)
                raise NotReadyError(f"ZooKeeper did not serve within {deadline_s:g} s\n{said}")
            time.sleep(0.02)

    def leader(self, deadline_s: float = READY_S) -> ZooKeeperServer:
        """The server that leads now (the only one, of one). Raises NotReadyError if none does in time."""
        end = time.monotonic() + deadline_s
        while time.monotonic() < end:
            for server in self.servers:
                if server.process is not None and server.mode() in ("leader", "standalone"):
                    return server
            time.sleep(0.02)
        raise NotReadyError(f"no server of {self.hosts} leads within {deadline_s:g} s")

    def close(self) -> None:
        """Ends all servers. Idempotent. Their data stays in the folder."""
        for server in self.servers:
            with contextlib.suppress(OSError):
                server.kill()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    def _prepare(self) -> None:
        self.servers = [
            ZooKeeperServer(number, self.folder / f"zookeeper-{number}", host, free_port(), network)
            for number, host, network in zip(range(1, self._count + 1), self._hosts, self._networks, strict=True)
        ]
        quorum = ""
        if self._count > 1:
            quorum = "".join(
                f"server.{server.number}={server.host}:{free_port()}:{free_port()}\n" for server in self.servers
            )
        for server in self.servers:
            shutil.rmtree(server.folder, ignore_errors=True)
            server.folder.mkdir(parents=True)
            (server.folder / "myid").write_text(f"{server.number}\n")
            (server.folder / "zoo.cfg").write_text(
                f"tickTime={self.tick_ms}\ninitLimit=40\nsyncLimit=8\ndataDir={server.folder}\n"
                f"clientPort={server.port}\nclientPortAddress={server.host}\nmaxClientCnxns=0\n"
                # No page over HTTP; a test's data need not survive the machine.
                f"admin.enableServer=false\n4lw.commands.whitelist=*\nforceSync=no\n{quorum}"
            )
