"""A program that opens from many places, in one order and another: walks are expected, and no stack is another's."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PATHS, ROUNDS, LEVELS = 256, 8, ("first", "second", "third", "fourth")


@pytest.mark.parametrize("threads", [1, 4])
def test_each_of_many_paths_has_its_stack(
    compiled: Callable[..., Path],
    recorded: Any,
    places: Callable[..., list[tuple[str, int]]],
    threads: int,
) -> None:
    program = compiled("many_paths.c", "-O2", "-fno-optimize-sibling-calls", "-pthread")
    process = recorded.start(program, str(ROUNDS), str(threads))
    opened_by = {}
    for line in process.stdout:
        if line == "ready\n":
            break
        number, path = map(int, line.split())
        opened_by[number] = path
    assert len(opened_by) == PATHS * threads
    recording = recorded.recording(process.pid)
    stacks = defaultdict(set)
    for slot in recording.slots:
        if slot.number in opened_by:
            stacks[opened_by[slot.number]].add(slot.stack)
    assert all(len(numbers) == 1 for numbers in stacks.values())
    by_path = {path: recording.stacks[number] for path, (number,) in stacks.items()}
    assert Counter(stack.opened for stack in by_path.values()) == {ROUNDS * threads: PATHS}
    for path, stack in by_path.items():
        called = [f"{level}_{path >> 2 * depth & 3}" for depth, level in enumerate(LEVELS)]
        seen = [name for name, _ in places(recording, program, stack.native[: len(LEVELS) + 1])]
        assert seen[::-1] == [*called, "innermost"], path
