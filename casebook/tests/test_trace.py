"""The story of a socket, from what strace prints (lines as it printed them)."""

from __future__ import annotations

from casebook.a_undrained_monitor.trace import MADE, acts, story

NEVER, SILENT = MADE[6], MADE[7]


def eventfd(number: int) -> str:
    return f"2237<traced>      {number}.000127 eventfd2(0, EFD_CLOEXEC) = {number}<anon_inode:[eventfd]>"


TRACE = "\n".join(
    [
        *(eventfd(number) for number in range(1, 8)),
        r'2237<traced>      7.000300 write(2<anon_inode:[eventfd]>, "\1\0\0\0\0\0\0\0", 8 <unfinished ...>',
        r"2240<ZMQbg/Reaper>      7.000400 read(2<anon_inode:[eventfd]>,  <unfinished ...>",
        r"2237<traced>      7.000410 <... write resumed>) = 8",
        r"2240<ZMQbg/Reaper>      7.000900 close(7<anon_inode:[eventfd]>) = 0",
        r'2237<traced>      7.600000 write(3<anon_inode:[eventfd]>, "\1\0\0\0\0\0\0\0", 8) = 8',
        "2237<traced>      8.000000 read(1<pipe:[5]>, 0x7ffd, 1) = 0",
        "2237<traced>      8.000100 eventfd2(0, EFD_CLOEXEC <unfinished ...>",
        "2237<traced>      8.000200 <... eventfd2 resumed>) = 7<anon_inode:[eventfd]>",
        r'2237<traced>      8.000500 write(3<anon_inode:[eventfd]>, "\1\0\0\0\0\0\0\0", 8) = 8',
        "+++ exited with 0 +++",
    ]
)


def test_a_socket_that_is_closed() -> None:
    assert story(acts(TRACE), NEVER) == [
        "     0.0 ms  program     makes the eventfd of its mailbox",
        "     0.2 ms  program     has a command for the reaper",
        "     0.3 ms  reaper      looks into the mailbox of the reaper",
        "     0.8 ms  reaper      closes it",
    ]


def test_a_socket_that_is_not_even_under_a_number_that_was_used_before() -> None:
    assert story(acts(TRACE), SILENT) == [
        "     0.0 ms  program     makes the eventfd of its mailbox",
        "     0.3 ms  program     has a command for the I/O thread",
        "             nobody      closes it",
    ]
