"""The table's Python binding: records, owners, errors, hooks. The C side has its own tests (native/)."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from leakline.recorder import ClosedTableError, DescriptorTable, LibraryMissingError, TableError, read_table
from leakline.recorder.library import Library, library


@pytest.fixture
def table(tmp_path: Path) -> Iterator[DescriptorTable]:
    table = DescriptorTable.create(tmp_path / "a.table")
    yield table
    table.close()


def test_a_record_says_number_kind_owner_age_and_thread(table: DescriptorTable) -> None:
    before = time.monotonic()
    assert table.put(500, "epoll", "event loop")
    (entry,) = table.entries()
    assert (entry.number, entry.kind, entry.owner, entry.source) == (500, "epoll", "event loop", "registered")
    assert before <= entry.opened_at_s <= time.monotonic()
    assert entry.tid == threading.get_native_id()
    assert entry.inode is None
    assert not entry.inherited


def test_a_socket_is_recorded_with_its_inode(table: DescriptorTable) -> None:
    with socket.socket() as one:
        table.put(one.fileno(), "tcp")
        (entry,) = table.entries()
        assert os.readlink(f"/proc/self/fd/{one.fileno()}") == f"socket:[{entry.inode}]"


def test_the_table_costs_no_descriptor(tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd")
    table = DescriptorTable.create(tmp_path / "b.table")
    assert os.listdir("/proc/self/fd") == before
    table.close()


def test_the_file_shows_what_the_table_holds(table: DescriptorTable) -> None:
    assert table.path
    for number in range(300, 5000, 7):
        table.put(number, ("eventfd", "epoll", "tcp")[number % 3], f"owner {number % 5}")
    shown = read_table(table.path)
    assert shown.entries == tuple(table.entries())
    assert (shown.settled, shown.torn, shown.unpublished, shown.live) == (True, 0, 0, True)
    assert shown.written_by(os.getpid())


def test_kinds_without_a_name_are_other(table: DescriptorTable) -> None:
    table.put(400, "teapot")
    table.put(401, "")
    assert [entry.kind for entry in table.entries()] == ["other", "other"]


def test_the_kinds_of_the_library_are_those_of_the_file(table: DescriptorTable) -> None:
    assert table.path
    kinds = library().kinds[1:]
    for index, kind in enumerate(kinds):
        table.put(600 + index, kind)
    assert [entry.kind for entry in read_table(table.path).entries] == kinds


def test_an_owner_keeps_its_name_until_its_last_record_is_gone(table: DescriptorTable) -> None:
    number = table.owner_number("session")
    table.put(700, "pipe", "session")
    table.release_owner("session")
    assert table.owner_number("other") != number
    assert table.entries()[0].owner == "session"
    assert table.forget(700)
    assert not table.forget(700)
    assert table.owner_number("third") == number


def test_names_given_in_passing_use_up_no_owner(table: DescriptorTable) -> None:
    for each in range(10_000):
        table.put(800, "pipe", f"owner {each}")
        assert not table.assign(801, f"event {each}")
    assert table.owner_number("after") <= 3


def test_owners_nest_and_belong_to_a_thread(table: DescriptorTable) -> None:
    seen = []
    with table.owner("outer") as outer:
        with table.owner("inner") as inner:
            assert library().owner_use(inner) == inner
            thread = threading.Thread(target=lambda: seen.append(library().owner_use(0)))
            thread.start()
            thread.join()
        assert library().owner_use(outer) == outer
    assert library().owner_use(0) == 0
    assert seen == [0]


def test_long_names_are_cut_between_characters(table: DescriptorTable) -> None:
    table.put(900, "pipe", "é" * 100)
    assert table.entries()[0].owner == "é" * 56


def test_more_records_than_one_listing_guesses(table: DescriptorTable) -> None:
    for number in range(1000, 4000):
        table.put(number, "file")
    assert [entry.number for entry in table.entries()] == list(range(1000, 4000))


def test_numbers_without_a_slot_are_counted_not_recorded(table: DescriptorTable) -> None:
    assert not table.put(1 << 30, "file")
    assert not table.put(-1, "file")
    assert table.entries() == []
    assert table.counters().out_of_range == 2


def test_closing_removes_the_file_and_ends_the_table(tmp_path: Path) -> None:
    path = tmp_path / "c.table"
    table = DescriptorTable.create(path)
    table.close()
    table.close()
    assert not path.exists()
    with pytest.raises(ClosedTableError):
        table.entries()


def test_a_file_that_exists_is_not_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "d.table"
    path.write_text("mine")
    with pytest.raises(TableError) as raised:
        DescriptorTable.create(path)
    assert isinstance(raised.value.__cause__, OSError)
    assert raised.value.__cause__.errno == errno.EEXIST
    assert path.read_text() == "mine"


def test_a_missing_library_is_a_typed_answer(tmp_path: Path) -> None:
    with pytest.raises(LibraryMissingError, match=r"(?s)libleakline\.so.*make native"):
        Library(tmp_path / "libleakline.so")


def test_a_library_of_other_sources_is_a_typed_answer(tmp_path: Path) -> None:
    other = tmp_path / "libleakline.so"
    subprocess.run(["cc", "-shared", "-o", str(other), "-x", "c", os.devnull], check=True)
    with pytest.raises(LibraryMissingError, match=r"(?s)other sources.*undefined symbol.*make native"):
        Library(other)


def test_a_library_that_is_not_loaded_has_nothing_to_hook(table: DescriptorTable) -> None:
    hooked = table.hook_library("libnobodyhasthis")
    assert (hooked.libraries, hooked.slots, hooked.functions, hooked.error) == (0, 0, frozenset(), None)
