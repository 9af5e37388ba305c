"""Opens and closes a socket OPERATIONS times, four Python calls deep; prints the nanoseconds of one, by the clock
and of processor time."""

import socket
import sys
import time


def open_one() -> socket.socket:
    return socket.socket()


def third() -> socket.socket:
    return open_one()


def second() -> socket.socket:
    return third()


def first() -> None:
    second().close()


operations = int(sys.argv[1])
began, processor = time.perf_counter_ns(), time.process_time_ns()
for _ in range(operations):
    first()
processor = time.process_time_ns() - processor
print(f"{(time.perf_counter_ns() - began) / operations:.1f} {processor / operations:.1f}")
