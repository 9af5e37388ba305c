"""Builds the programs that tests name addresses of."""

from __future__ import annotations

import subprocess
from pathlib import Path

PROGRAMS = Path(__file__).with_name("programs")
TARGET = Path(__file__).parents[2] / "src/leakline/recorder/target"


def build(compiler: str, output: Path, *words: str | Path) -> Path:
    """Compile and link; the output."""
    command = [compiler, "-o", output, *words]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return output


def recorded_library(folder: Path) -> Path:
    """The recorder with a function that opens a descriptor and records it: librecorded.so."""
    flags = [
        "-std=gnu11",
        "-O1",
        "-g",
        "-fPIC",
        "-fvisibility=hidden",
        "-fno-omit-frame-pointer",
        "-shared",
        "-pthread",
    ]
    flags += ["-ftls-model=initial-exec", "-static-libgcc", f"-I{TARGET}"]
    return build("cc", folder / "librecorded.so", *flags, PROGRAMS / "recorded.c", *sorted(TARGET.glob("*.c")))


def client(folder: Path, recorded: Path, *flags: str) -> Path:
    """The client, over a stripped libzmq.so.5 that stands in for the real one."""
    library = build(
        "cc",
        folder / "libzmq.so.5",
        "-O2",
        "-fPIC",
        "-shared",
        "-s",
        "-fvisibility=hidden",
        PROGRAMS / "zmq_stand_in.c",
        recorded,
    )
    include = f"-I{PROGRAMS / 'include'}"
    words = ["-std=c++17", "-O2", *(flags or ("-g",)), include, PROGRAMS / "client.cpp", library, recorded, "-pthread"]
    return build("c++", folder / "client", *words, f"-Wl,-rpath,{folder}:{recorded.parent}")


def line_of(text: str, program: str) -> int:
    """The number of the one line of a program that has this text."""
    lines = (PROGRAMS / program).read_text().splitlines()
    (number,) = [number for number, line in enumerate(lines, 1) if text in line]
    return number
