"""Both libraries load into any glibc since 2.17 (2012), wherever they were built: they need no newer function."""

from __future__ import annotations

import os
import re
import struct
from pathlib import Path

import pytest

from leakline.recorder.elf import open_elf

RECORDER = Path(__file__).parents[2] / "src/leakline/recorder"
LIBRARIES = ["native/libleakline.so", "target/libleakline_recorder.so"]
FILE, VERSION = struct.Struct("<HHIII"), struct.Struct("<IHHII")  # Elf64_Verneed, Elf64_Vernaux


def needed_versions(path: Path) -> dict[str, set[str]]:
    """By library, as `.gnu.version_r` has them: what the loader refuses to start without."""
    elf, file = open_elf(str(path))
    try:
        table, names = elf.content(".gnu.version_r"), elf.content(".dynstr")
    finally:
        os.close(file)

    def name(start: int) -> str:
        return names[start : names.index(b"\0", start)].decode()

    needed: dict[str, set[str]] = {}
    at, step = 0, 1
    while step:
        _, count, library, first, step = FILE.unpack_from(table, at)
        entry = at + first
        for _ in range(count):
            _, _, _, version, following = VERSION.unpack_from(table, entry)
            needed.setdefault(name(library), set()).add(name(version))
            entry += following
        at += step
    return needed


@pytest.mark.parametrize("library", LIBRARIES)
def test_no_version_is_newer_than_2_17(library: str) -> None:
    needed = needed_versions(RECORDER / library)
    assert "libc.so.6" in needed
    assert set(needed) <= {
        "libc.so.6",
        "libdl.so.2",
        "libpthread.so.0",
        "ld-linux-x86-64.so.2",
        "ld-linux-aarch64.so.1",
    }
    for version in set().union(*needed.values()):
        found = re.fullmatch(r"GLIBC_(\d+)\.(\d+)(\.\d+)?", version)
        assert found, version
        assert (int(found[1]), int(found[2])) <= (2, 17), version
