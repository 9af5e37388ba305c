"""Reading a table from another process: while it is written at full speed, after SIGKILL, and when it is damaged."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from leakline.recorder import DescriptorTable, Table, TableFormatError, read_table

# Four threads change records as fast as they can; number, kind and owner always belong together.
CHURN = """
    import sys, threading
    from pathlib import Path
    from leakline.recorder import DescriptorTable
    table = DescriptorTable.create(Path(sys.argv[1]))
    table.put(1000, "file", "steady")
    def churn(first):
        while True:
            for number in range(first, first + 40):
                table.put(number, *(("eventfd", "even") if number % 2 == 0 else ("epoll", "odd")))
            for number in range(first, first + 40):
                table.forget(number)
    print("ready")
    for each in range(4):
        threading.Thread(target=churn, args=(2000 + 100 * each,)).start()
"""

Start = Callable[..., "subprocess.Popen[str]"]


def consistent(table: Table) -> bool:
    pairs = {(entry.number % 2, entry.kind, entry.owner) for entry in table.entries if entry.number >= 2000}
    return pairs <= {(0, "eventfd", "even"), (1, "epoll", "odd"), (0, "eventfd", ""), (1, "epoll", "")}


def test_a_reader_sees_whole_records_while_the_writer_churns(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "churn.table"
    writer = start(CHURN, str(path))
    opened = read_table(path).opened
    changing = reads = 0
    deadline = time.monotonic() + 60
    while reads < 150 or changing <= 20:  # on a busy machine the writer gets its turn now and then
        assert time.monotonic() < deadline, f"the writer wrote between {changing} of {reads} reads"
        reads += 1
        table = read_table(path)
        assert consistent(table)
        assert table.torn == 0
        assert any(entry.number == 1000 and entry.owner == "steady" for entry in table.entries)
        assert table.written_by(writer.pid)
        changing += table.opened > opened
        opened = table.opened


def test_a_table_can_be_read_after_its_writer_was_killed(start: Start, tmp_path: Path) -> None:
    for attempt in range(5):
        path = tmp_path / f"{attempt}.table"
        writer = start(CHURN, str(path))
        deadline = time.monotonic() + 20
        while read_table(path).opened < 1000 * (attempt + 1):
            assert time.monotonic() < deadline
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        table = read_table(path)
        assert consistent(table)
        assert table.torn <= 2  # a record and an owner, when it was killed in the middle of them
        assert any(entry.number == 1000 for entry in table.entries)
        assert table.live
        assert not table.written_by(writer.pid)


def test_damaged_files_are_typed_errors(tmp_path: Path) -> None:
    table = DescriptorTable.create(tmp_path / "whole")
    for number in range(64):
        table.put(number, "file", "somebody")
    assert table.path
    whole = table.path.read_bytes()
    table.close()
    path = tmp_path / "damaged"
    for size in (0, 8, 4095, 4096, 100_000):
        path.write_bytes(whole[:size])
        with pytest.raises(TableFormatError):
            read_table(path)
    path.write_bytes(whole[:8] + b"\x63" + whole[9:])
    with pytest.raises(TableFormatError, match="layout 99; this leakline reads 1"):
        read_table(path)
    generator = random.Random(1)
    for _ in range(300):
        position = generator.randrange(8, 700)
        path.write_bytes(whole[:position] + generator.randbytes(8) + whole[position + 8 :])
        try:
            read_table(path)
        except TableFormatError as error:
            assert str(path) in str(error)  # noqa: PT017 - either outcome is right


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    table = DescriptorTable.create(tmp_path / "real")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(OSError, match="link"):
        read_table(tmp_path / "link")
    table.close()


@pytest.mark.root
def test_a_full_file_system_is_an_error_and_not_a_signal(tmp_path: Path) -> None:
    """Writing to a hole of a full tmpfs would be SIGBUS: the records go on in private, and are counted."""
    program = """
        import sys
        from pathlib import Path
        from leakline.recorder import DescriptorTable, TableError
        directory = Path(sys.argv[1])
        table = DescriptorTable.create(directory / "first")
        with open(directory / "filler", "wb", buffering=0) as filler:
            try:
                while filler.write(bytes(4096)):
                    pass
            except OSError:
                pass
        for number in range(0, 20000, 500):
            table.put(number, "file", f"owner {number}")
        print(len(table.entries()), table.counters().unpublished > 0)
        try:
            DescriptorTable.create(directory / "second")
        except TableError as error:
            print(error.__cause__.errno, (directory / "second").exists())
    """
    program = "\n".join(line[8:] for line in program.splitlines())
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "leakline-test", str(tmp_path)], check=True)
    try:
        done = subprocess.run(
            [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, timeout=30
        )
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["40", "True", "28", "False"]


def test_reading_leaves_no_descriptor_behind(tmp_path: Path) -> None:
    table = DescriptorTable.create(tmp_path / "e.table")
    before = os.listdir("/proc/self/fd")
    assert table.path
    for _ in range(100):
        read_table(table.path)
    assert os.listdir("/proc/self/fd") == before
    table.close()
