"""A folder, ports and processes of one healthy program and its load; all of them end with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from recorded_programs import answers_at, family, free_port, wait

HERE = Path(__file__).parent
SOURCES = HERE / "healthy_programs"
START_S = 90.0
END_S = 10.0
HTTP = r"GET / HTTP/1.0\r\n\r\n"


@dataclass
class Scene:
    """`load` starts what gives the program work, until `end`."""

    folder: Path
    port: int = field(default_factory=free_port)
    loads: list[subprocess.Popen[bytes]] = field(default_factory=list)
    _started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, *words: str, environment: dict[str, str] | None = None, cwd: Path | None = None) -> int:
        """The pid of a program that goes on."""
        return self._start("program", words, environment, cwd).pid

    def serve(
        self, *words: str, port: int = 0, environment: dict[str, str] | None = None, cwd: Path | None = None
    ) -> int:
        """The pid of a server, when it answers at its port."""
        process = self._start("program", words, environment, cwd)
        wait(lambda: answers_at(port or self.port), START_S, process)
        return process.pid

    def until_it_says(self, text: str) -> None:
        """Wait for a word of the program that was started last."""
        wait(lambda: text in (self.folder / "program").read_text(errors="replace"), START_S, self._started[-1])

    def python(self, name: str, *words: str) -> int:
        """A server of healthy_programs, whose first argument is its port."""
        port = words[0] if words else str(self.port)
        return self.serve(sys.executable, str(SOURCES / name), port, *words[1:], port=int(port))

    def requests(self, request: str = HTTP, kind: str = "tcp", port: int = 0) -> None:
        """Short connections, in bursts."""
        self.load(sys.executable, str(HERE / "healthy_load.py"), kind, str(port or self.port), request)

    def repeat(self, command: str, pause_s: float = 0.5) -> None:
        """A command of the shell, again and again. It must succeed once to count."""
        self.load("sh", "-c", f"while :; do {command} && echo 1; sleep {pause_s}; done")

    def load(self, *words: str, environment: dict[str, str] | None = None) -> None:
        self.loads.append(self._start(f"load {len(self.loads)}", words, environment, None))

    def child(self, pid: int) -> int:
        """The first child of a server that has its work done by others."""
        found: list[int] = []
        limit = time.monotonic() + START_S
        while len(found := family(pid)) < 2:
            if time.monotonic() > limit:
                raise RuntimeError(f"{pid} has no child")
            time.sleep(0.02)
        return found[1]

    def write(self, name: str, text: str) -> str:
        """A file of settings, with FOLDER and PORT replaced; its path."""
        path = self.folder / name
        path.write_text(text.replace("FOLDER", str(self.folder)).replace("PORT", str(self.port)))
        return str(path)

    def faults(self) -> list[str]:
        """What was wrong with the load: a program without work is no evidence."""
        found = []
        for number, load in enumerate(self.loads):
            said = (self.folder / f"load {number}").read_text(errors="replace")
            answered = sum(int(line) for line in said.split("\n") if line.strip().isdigit())
            if load.poll() is not None or not answered:
                found.append(f"no load: status {load.poll()}, it said {said[-300:]!r}")
        return found

    def said(self) -> str:
        """The end of what the program printed."""
        return (self.folder / "program").read_text(errors="replace")[-600:]

    def end(self) -> None:
        """All processes, and what they started, wherever these have gone."""
        started = [*self.loads, *reversed(self._started)]
        pids = {pid for each in started for pid in family(each.pid)}
        for each in started:
            each.send_signal(signal.SIGTERM)
        limit = time.monotonic() + END_S
        while time.monotonic() < limit and any(each.poll() is None for each in started):
            time.sleep(0.05)
        for pid in pids.intersection(family(os.getpid())):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for each in started:
            each.wait(END_S)

    def _start(
        self, name: str, words: tuple[str, ...], environment: dict[str, str] | None, cwd: Path | None
    ) -> subprocess.Popen[bytes]:
        with (self.folder / name).open("ab") as output:
            process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, "LC_ALL": "C", **(environment or {})},
                cwd=cwd,
            )
        if not name.startswith("load"):
            self._started.append(process)
        return process


Begin = Callable[[Scene], dict[str, int]]
