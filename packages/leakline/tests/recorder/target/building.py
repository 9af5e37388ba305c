"""Builds the programs whose recorded stacks tests name."""

from __future__ import annotations

import subprocess
from pathlib import Path

PROGRAMS = Path(__file__).with_name("programs")


def build(compiler: str, output: Path, *words: str | Path) -> Path:
    """Compile and link; the output."""
    done = subprocess.run([compiler, "-o", output, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return output


def client(folder: Path, *flags: str) -> Path:
    """The client, over a stripped libzmq.so.5 that stands in for the real one."""
    hidden = ["-O2", "-fPIC", "-shared", "-s", "-fvisibility=hidden"]
    library = build("cc", folder / "libzmq.so.5", *hidden, PROGRAMS / "zmq_stand_in.c")
    words = ["-std=c++17", "-O2", *flags, f"-I{PROGRAMS / 'include'}", PROGRAMS / "client.cpp", library, "-pthread"]
    return build("c++", folder / "client", *words, f"-Wl,-rpath,{folder}")


def line_of(text: str, program: str) -> int:
    """The number of the one line of a program that has this text."""
    lines = (PROGRAMS / program).read_text(encoding="utf-8").splitlines()
    (number,) = [number for number, line in enumerate(lines, 1) if text in line]
    return number
