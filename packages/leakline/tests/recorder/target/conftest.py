"""Programs in C that are compiled for a test and run under the recorder."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from leakline.recorder import Recording, read_recording

HERE = Path(__file__).parent
TARGET = Path(__file__).parents[3] / "src/leakline/recorder/target"


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`compiled("calls.c", *options)`: the program of a source in this folder; with debug information."""
    folder = tmp_path_factory.mktemp("programs")

    def build(source: str, *options: str) -> Path:
        program = folder / Path(source).stem
        flags = ["-std=gnu11", "-O0", "-g", "-Wall", "-Wextra", "-Werror", "-Wno-missing-field-initializers"]
        command = ["cc", *flags, f"-I{TARGET}", "-o", str(program), str(HERE / source), *options]
        subprocess.run(command, check=True)
        return program

    return build


class Recorded:
    """Starts programs under the recorder, and reads what it says."""

    recorder = TARGET / "libleakline_recorder.so"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._running: list[subprocess.Popen[str]] = []

    def start(self, *command: str | Path, follow: bool = False, preload: str = "") -> subprocess.Popen[str]:
        """With pipes for input and output, as `leakline run` does it: the pid is the one that exec keeps.

        `preload`: a list of libraries, with "RECORDER" in the place of the recorder.
        """
        libraries = (preload or "RECORDER").replace("RECORDER", str(self.recorder))
        asked = {"LEAKLINE_RECORDING": f"{self.folder}/%p.leakline", "RECORDER": libraries}
        if follow:
            asked["LEAKLINE_FOLLOW"] = "1"
        shell = 'export LEAKLINE_PID=$$ LD_PRELOAD="$RECORDER"; unset RECORDER; exec "$@"'
        words = ["/bin/sh", "-c", shell, "sh", *map(str, command)]
        pipe = subprocess.PIPE
        process = subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=os.environ | asked)
        self._running.append(process)
        return process

    def recording(self, pid: int) -> Recording:
        return read_recording(self.folder / f"{pid}.leakline")

    def end(self) -> None:
        for process in self._running:
            process.kill()
            process.communicate()


@pytest.fixture
def recorded(tmp_path: Path) -> Iterator[Recorded]:
    recorder = Recorded(tmp_path)
    yield recorder
    recorder.end()


@pytest.fixture
def places() -> Callable[[Recording, Path, Sequence[int]], list[tuple[str, int]]]:
    """Function and line of return addresses in a program, by its debug information."""

    def look_up(recording: Recording, program: Path, addresses: Sequence[int]) -> list[tuple[str, int]]:
        bias = next(library.bias for library in recording.libraries.values() if library.path == str(program))
        command = ["addr2line", "-f", "-e", str(program), *(hex(address - bias - 1) for address in addresses)]
        lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
        return [(lines[i], int(lines[i + 1].rsplit(":", 1)[1].split()[0])) for i in range(0, len(lines), 2)]

    return look_up
