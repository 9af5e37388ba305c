"""Children that are forked while another thread holds the loader's lock: none may wait for it.

fork() in glibc copies that lock as it is, and the thread that would release it is not in the child.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from leakline.recorder import Recording, read_recording

FORKS = int(os.environ.get("LEAKLINE_HOLD_FORKS", "60"))


def test_no_child_waits_for_a_lock_that_nobody_holds(
    compiled: Callable[..., Path], recorded: Any, places: Any, tmp_path: Path
) -> None:
    program = compiled("loader_forks.c", "-ldl", "-pthread")
    process = recorded.start(program, str(FORKS), follow=True)
    output, errors = process.communicate(timeout=100 + FORKS)
    assert (process.returncode, errors, output) == (0, "", "0\n")
    children = [path for path in tmp_path.glob("*.leakline") if path.stem != str(process.pid)]
    assert len(children) == FORKS
    found = Counter(_opened_at(read_recording(path), program, places) for path in children[:20])
    assert set(found) == {"open_in_child"}


def _opened_at(recording: Recording, program: Path, places: Any) -> str:
    """The program's function whose frame is innermost in the stack of the newest descriptor."""
    slot = max((slot for slot in recording.slots if slot.function == "open"), key=lambda slot: slot.opened_at_s)
    stack = recording.stacks[slot.stack]
    own = {number for number, library in recording.libraries.items() if library.path == str(program)}
    addresses = [pc for pc, library in zip(stack.native, stack.libraries, strict=True) if library in own]
    assert addresses, f"no frame of {program.name} is named: libraries {stack.libraries}"
    return str(places(recording, program, addresses[:1])[0][0])
