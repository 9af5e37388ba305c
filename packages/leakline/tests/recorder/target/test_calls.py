"""Every intercepted function is called once, from a known line (calls.c): each origin is right, no more and no less."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from leakline.proc.snapshot import snapshot
from leakline.recorder.reconcile import reconcile

# What a kernel or a container may refuse. Everything else must work everywhere.
MAY_BE_REFUSED = {
    *("fanotify_init", "open_by_handle_at", "fsopen", "fspick", "fsmount", "open_tree", "pidfd_open", "pidfd_getfd"),
    *("syscall_fanotify_init", "syscall_open_by_handle_at", "syscall_fsopen", "syscall_fspick", "syscall_fsmount"),
    *("syscall_open_tree", "syscall_open_tree_attr", "syscall_openat2", "syscall_memfd_secret", "syscall_pidfd_open"),
    *("syscall_pidfd_getfd", "syscall_userfaultfd", "syscall_perf_event_open", "syscall_io_uring_setup"),
    *("syscall_landlock_create_ruleset", "syscall_seccomp", "syscall_bpf", "mq_open", "__mq_open_2", "syscall_mq_open"),
    *("ioctl_NS_GET_USERNS", "ioctl_NS_GET_PARENT", "ioctl_SIOCGSKNS", "ioctl_KVM_CREATE_VM", "ioctl_KVM_CREATE_VCPU"),
}


def _told(process: subprocess.Popen[str]) -> tuple[dict[int, tuple[str, int, str]], set[str]]:
    """What the program says it opened (descriptor -> function, line, how), and what the kernel refused."""
    opened, refused = {}, set()
    assert process.stdout
    for line in process.stdout:
        match line.split():
            case ["ready"]:
                return opened, refused
            case ["refused", name, _]:
                refused.add(name.removeprefix("case_"))
            case [name, number_of_line, how, number]:
                opened[int(number)] = (name, int(number_of_line), how)
            case _:
                raise AssertionError(line)
    raise AssertionError("the program ended")


def _intercepted(case: str) -> str:
    return re.sub(r"^(syscall|ioctl)_.*", r"\1", case.removeprefix("case_"))


def test_each_origin_is_the_line_of_the_call(
    compiled: Callable[..., Path], recorded: Any, places: Any, tmp_path: Path
) -> None:
    program = compiled("calls.c")
    work = tmp_path / "work"
    work.mkdir()
    process = recorded.start(program, work)
    opened, refused = _told(process)
    seen = snapshot(process.pid)
    recording = recorded.recording(process.pid)
    _, errors = process.communicate("")
    assert (process.returncode, errors) == (0, "")
    assert refused <= MAY_BE_REFUSED

    slots = {slot.number: slot for slot in recording.slots if slot.how not in ("older", "inherited")}
    where = places(recording, program, [recording.stacks[slot.stack].native[0] for slot in slots.values()])
    found = {
        number: (*place, slot.how, slot.function) for (number, slot), place in zip(slots.items(), where, strict=True)
    }
    assert found == {number: (*case, _intercepted(case[0])) for number, case in opened.items()}
    assert (recording.wrong_closes, recording.exhausted.count) == ((), 0)

    reconciled = reconcile(recording, seen)
    assert {slot.number for slot in reconciled.slots} >= set(opened), "what it made is of a kind that it can make"
    assert reconciled.dropped == ()
