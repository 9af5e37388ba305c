"""A recording against /proc: pure."""

from __future__ import annotations

import pytest

from leakline.facts import Descriptor, Snapshot
from leakline.recorder.reconcile import fits, reconcile
from leakline.recorder.recording import Recording, Slot

AT = 100.0  # the snapshot's moment


def slot(number: int, function: str = "open", opened_at_s: float = 50.0) -> Slot:
    return Slot(number, "opened", function, 1, None, 7, opened_at_s, number)


def recording(*slots: Slot, closed_at_s: dict[int, float] | None = None) -> Recording:
    return Recording(
        path="x", pid=1, parent_pid=0, start_time_ticks=1, pid_namespace=1, mode="launched", began_at_s=1.0,
        ended_at_s=None, live=True, slots=slots, closed_at_s=closed_at_s or {},
    )  # fmt: skip


def snapshot(**kinds: str) -> Snapshot:
    """`snapshot(n5="tcp")`: descriptor 5 is a TCP socket."""
    found = tuple(Descriptor(int(number[1:]), kind, "") for number, kind in kinds.items())
    return Snapshot(pid=1, command="x", at=AT, descriptors=found, limits=None)


def test_what_both_have_is_open() -> None:
    found = reconcile(recording(slot(5), slot(6, "socket")), snapshot(n5="file", n6="tcp"))
    assert [each.number for each in found.slots] == [5, 6]
    assert (found.outside, found.dropped) == ((), ())


def test_what_only_proc_has_was_opened_outside_libc() -> None:
    found = reconcile(recording(slot(5)), snapshot(n5="file", n6="tcp"))
    assert [each.number for each in found.outside] == [6]


def test_what_only_the_recording_has_was_closed_outside_libc() -> None:
    found = reconcile(recording(slot(5), slot(6)), snapshot(n5="file"))
    assert [each.number for each in found.dropped] == [6]
    assert [each.number for each in found.slots] == [5]


def test_another_kind_is_another_descriptor() -> None:
    """Closed by a system call of its own, and its number opened again by one."""
    found = reconcile(recording(slot(5, "eventfd")), snapshot(n5="tcp"))
    assert [each.number for each in found.dropped] == [5]
    assert [each.number for each in found.outside] == [5]
    assert found.slots == ()


def test_what_came_or_went_after_the_snapshot_is_no_mystery() -> None:
    found = reconcile(recording(slot(5, opened_at_s=AT + 1), closed_at_s={6: AT + 1}), snapshot(n6="tcp"))
    assert (found.slots, found.outside, found.dropped) == ((), (), ())
    reused = reconcile(recording(slot(5, "eventfd", opened_at_s=AT + 1)), snapshot(n5="tcp"))
    assert (reused.slots, reused.outside, reused.dropped) == ((), (), ())


def test_what_was_closed_long_before_is_another_one() -> None:
    found = reconcile(recording(closed_at_s={6: AT - 1}), snapshot(n6="tcp"))
    assert [each.number for each in found.outside] == [6]


def test_a_process_that_ended_has_what_the_recording_says() -> None:
    found = reconcile(recording(slot(5)), None)
    assert [each.number for each in found.slots] == [5]


@pytest.mark.parametrize(
    ("function", "kind", "certain"),
    [
        ("open", "tcp", False),
        ("open64", "eventfd", False),
        ("openat", "pipe", True),
        ("open64", "pty", True),
        ("opendir", "directory", True),
        ("opendir", "file", False),
        ("openpty", "pty", True),
        ("socket", "netlink", True),
        ("accept4", "vsock", True),
        ("socket", "eventfd", False),
        ("epoll_create1", "epoll", True),
        ("pipe2", "tcp", False),
        ("dup", "tcp", True),
        ("", "tcp", True),
        ("socket", "unknown", True),
    ],
)
def test_which_function_makes_which_kind(function: str, kind: str, certain: bool) -> None:
    assert fits(function, kind) is certain
