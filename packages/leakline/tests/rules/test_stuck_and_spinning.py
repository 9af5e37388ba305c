"""Threads that wait for each other are told from idle pools; a thread that spins at the limit, from one that works."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from leakline.facts import Address, Descriptor, Frame, Snapshot, Socket, Thread, Wait
from leakline.rules import diagnose
from leakline.rules.observed import Observed

MUTEX, LOCK = Wait("futex", lock=0x1000, mutex=True, owner=9), Wait("futex", lock=0x1000)
EVENTFD = Descriptor(6, "eventfd", "anon_inode:[eventfd]")
STREAM = Descriptor(7, "tcp", "socket:[7]", 7, socket=Socket("tcp", "outgoing", "ESTABLISHED", None, Address("a", 1)))
LISTENER = Descriptor(
    8, "tcp", "socket:[8]", 8, socket=Socket("tcp", "listener", "LISTEN", Address("0.0.0.0", 80), None, None, 5)
)


def thread(tid: int, wait: Wait | None, switches: int = 5, **more: Any) -> Thread:
    return Thread(tid, f"worker {tid}", "S", "futex_wait_queue", switches, wait=wait, **more)


def told(scene: Any, before: list[Thread], after: list[Thread], **more: Any) -> list[str]:
    facts: Observed = scene([EVENTFD, STREAM, LISTENER], seen={"threads": tuple(after)}, **more)
    assert isinstance(facts.begin, Snapshot)
    begin = msgspec.structs.replace(facts.begin, threads=tuple(before))
    return [finding.id for finding in diagnose(msgspec.structs.replace(facts, begin=begin))]


def stack(file: str) -> tuple[Frame, ...]:
    return (Frame("f", file, 3, "python"),)


@pytest.mark.parametrize(
    ("waits", "stuck"),
    [
        ((MUTEX, MUTEX), True),
        ((MUTEX, msgspec.structs.replace(MUTEX, lock=0x2000)), True),  # each holds the other's
        ((MUTEX,), False),
        ((LOCK, LOCK, LOCK), False),  # a pool, or a lock: without stacks nobody can tell
        ((Wait("recvfrom", numbers=(7,)), Wait("recvfrom", numbers=(7,))), True),
        ((Wait("accept4", numbers=(8,)), Wait("accept4", numbers=(8,))), False),
        ((Wait("poll", numbers=(8,)), Wait("poll", numbers=(8,))), False),
        ((Wait("poll", numbers=(6,)), Wait("poll", numbers=(6,))), False),  # no libzmq here
        ((Wait("epoll_wait", numbers=(5,)), Wait("epoll_wait", numbers=(5,))), False),
    ],
)
def test_what_several_threads_may_wait_for(scene: Any, waits: tuple[Wait, ...], stuck: bool) -> None:
    threads = [thread(tid, wait) for tid, wait in enumerate(waits, 10)]
    assert told(scene, threads, threads) == (["threads.stuck"] if stuck else [])
    moved = [msgspec.structs.replace(each, context_switches=6) for each in threads]
    assert told(scene, threads, moved) == []


def test_two_threads_at_one_socket_of_zeromqs(scene: Any) -> None:
    threads = [thread(tid, Wait("poll", numbers=(6,))) for tid in (10, 11)]
    zmq = {"threads": tuple(threads), "libraries": ("libzmq.so.5",)}
    facts = scene([EVENTFD], seen=zmq)
    begin = msgspec.structs.replace(facts.begin, threads=tuple(threads))
    assert [each.id for each in diagnose(msgspec.structs.replace(facts, begin=begin))] == ["threads.stuck"]


@pytest.mark.parametrize(
    ("file", "stuck"),
    [
        ("/srv/app/relay.py", True),
        ("/usr/lib/python3.11/concurrent/futures/thread.py", False),
        ("/usr/lib/python3.11/threading.py", False),
        ("/usr/lib/python3.11/queue.py", False),
        ("/usr/lib/python3.11/multiprocessing/pool.py", False),
    ],
)
def test_python_stacks_tell_a_lock_from_an_idle_pool(scene: Any, file: str, stuck: bool) -> None:
    threads = [thread(tid, LOCK) for tid in (10, 11, 12)]
    stacks = {each.tid: stack(file) for each in threads}
    assert told(scene, threads, threads, stacks=stacks) == (["threads.stuck"] if stuck else [])


@pytest.mark.parametrize(
    ("on_cpu", "ready", "limit", "spins"), [(9.0, 0.5, 3, True), (3.0, 4.0, 3, True), (1.0, 1.0, 3, False)]
)
def test_a_thread_that_does_not_sleep_at_the_limit_spins(
    scene: Any, on_cpu: float, ready: float, limit: int, spins: bool
) -> None:
    before = [thread(10, None, cpu_seconds=1.0, ready_seconds=1.0)]
    after = [thread(10, None, cpu_seconds=1.0 + on_cpu, ready_seconds=1.0 + ready)]
    found = told(scene, before, after, limit=limit)
    assert found == [*(["limit.accept-spin"] if spins else []), "limit.exhausted"]
    assert told(scene, before, after, limit=1024) == []
