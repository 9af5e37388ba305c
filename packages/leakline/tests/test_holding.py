"""Which of the holders has only a copy: decided from processes, their ancestors and open files alone."""

from __future__ import annotations

from leakline.facts import Address, Socket
from leakline.holding import Held, Hold, Holder, rows
from leakline.reports.holders import as_text
from leakline.reports.style import Style

LISTENER = Socket("tcp", "listener", "LISTEN", Address("0.0.0.0", 80))
ACCEPTED = Socket("tcp", "accepted", "ESTABLISHED", Address("0.0.0.0", 80), Address("10.0.0.1", 4711))


def holder(pid: int, started: int, *ancestors: int) -> Holder:
    return Holder(pid, f"program {pid}", started, 1000.0 - started, ancestors)


def listens(pid: int, number: int = 3, inode: int = 7) -> Hold:
    return Hold(pid, "descriptor", f"socket:[{inode}]", number, inode, LISTENER)


def relations(*holds: Hold, holders: tuple[Holder, ...]) -> dict[int, tuple[str, int | None]]:
    return {row.holder.pid: (row.relation, row.of) for row in rows(Held("port 80", holders, holds))}


def test_a_single_holder_has_no_copy() -> None:
    assert relations(listens(5), holders=(holder(5, 1),)) == {5: ("own", None)}


def test_a_child_has_its_parents_and_a_grandchild_whose_parent_has_none_its_grandparents() -> None:
    family = (holder(5, 1), holder(6, 2, 5), holder(8, 4, 7, 5))
    found = relations(listens(5), listens(6), listens(8), holders=family)
    assert found == {5: ("first", None), 6: ("inherited", 5), 8: ("inherited", 5)}


def test_siblings_whose_parent_has_ended_share() -> None:
    assert relations(listens(6), listens(7), holders=(holder(7, 3), holder(6, 2))) == {
        6: ("first", None),
        7: ("shared", 6),
    }


def test_the_same_file_opened_twice_is_no_copy() -> None:
    one, other = Hold(5, "descriptor", "/log", 3, 1), Hold(6, "descriptor", "/log", 3, 2)
    assert relations(one, other, holders=(holder(5, 1), holder(6, 2, 5))) == {5: ("own", None), 6: ("own", None)}


def test_what_the_kernel_did_not_tell_is_not_called_a_copy() -> None:
    one, other = Hold(5, "descriptor", "/log", 3), Hold(6, "descriptor", "/log", 3)
    assert relations(one, other, holders=(holder(5, 1), holder(6, 2, 5))) == {5: ("own", None), 6: ("own", None)}


def test_listeners_come_first_and_connections_of_one_state_share_a_row() -> None:
    holds = [Hold(5, "descriptor", f"socket:[{n}]", n, n, ACCEPTED) for n in range(10, 20)]
    first, second = rows(Held("port 80", (holder(5, 1),), (*holds, listens(5))))
    assert (first.hold.socket, first.numbers) == (LISTENER, (3,))
    assert (second.count, second.numbers) == (10, tuple(range(10, 20)))


def test_a_deleted_file_is_counted_once_however_many_have_it() -> None:
    deleted = [Hold(pid, "descriptor", "/log (deleted)", 3, 1, deleted=True, bytes_kept=3 << 20) for pid in (5, 6)]
    text = as_text(Held("/log", (holder(5, 1), holder(6, 2, 5)), tuple(deleted)), Style(80))
    assert "held by 2 processes, of which 1 only has a copy" in text
    assert "3.0 MiB of disk come back" in text


def test_foreign_names_cannot_control_the_terminal_nor_break_the_width() -> None:
    evil = Holder(5, "evil\n\033[2J" + "x" * 200, 1, 5.0)
    held = Held("/tmp/\033[2J", (evil,), (Hold(5, "descriptor", "/tmp/\033[2J" + "y" * 300, 3, below=True),))
    for width in (40, 80, 110):
        text = as_text(held, Style(width))
        assert "\033" not in text
        assert max(map(len, text.splitlines())) <= max(width, 60)
