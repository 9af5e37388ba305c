"""A clear answer for every process that has nothing to show, or may not be looked at; and who it is otherwise."""

from __future__ import annotations

import os
import pickle
import pwd
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from leakline import proc
from leakline.errors import (
    AmbiguousNameError,
    KernelThreadError,
    LeaklineError,
    NoSuchProcessError,
    ZombieError,
)

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


def wait_for_state(pid: int, state: str) -> None:
    deadline = time.monotonic() + 20
    while proc.threads(pid)[0].state != state:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_no_such_process_says_how_to_find_one() -> None:
    highest = int(Path("/proc/sys/kernel/pid_max").read_text())
    with pytest.raises(NoSuchProcessError, match="there is no process") as caught:
        proc.snapshot(highest + 1)
    assert "ps -e" in caught.value.hint
    assert caught.value.exit_code == 3


def test_a_zombie_names_its_parent() -> None:
    with subprocess.Popen(["true"]) as ended:
        while os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT) is None:
            pass
        with pytest.raises(ZombieError) as caught:
            proc.snapshot(ended.pid)
        assert f"leakline {os.getpid()}" in caught.value.hint


def test_a_kernel_thread_has_no_descriptors() -> None:
    comm = Path("/proc/2/comm")  # inside a container, process 2 is something else or nothing
    if not comm.exists() or comm.read_text() != "kthreadd\n":
        pytest.skip("no kernel thread is visible in this pid namespace")
    with pytest.raises(KernelThreadError, match="kthreadd"):
        proc.snapshot(2)


def test_a_main_thread_that_has_left_does_not_hide_the_descriptors(start: Any) -> None:
    target = start(
        """
        import ctypes, os, threading
        fds["null"] = os.open("/dev/null", os.O_RDONLY)
        def stay():
            print(_json.dumps(fds), flush=True)
            _sys.stdin.read()
        import json as _json, sys as _sys
        threading.Thread(target=stay).start()
        ctypes.CDLL(None).syscall(60 if os.uname().machine == "x86_64" else 93, 0)  # exit of this thread alone
        """
    )
    wait_for_state(target.pid, "Z")
    snapshot = proc.snapshot(target.pid)
    assert target.fds["null"] in {descriptor.number for descriptor in snapshot.descriptors}
    assert proc.count(target.pid) == snapshot.total


@needs_root
def test_another_users_process_is_refused_with_what_to_type(start: Any) -> None:
    target = start("")
    look = (
        "import os, sys\n"
        "from leakline import proc, errors\n"
        f"os.setgid(65534); os.setuid(65534)\n"
        f"print(proc.count({target.pid}))\n"
        "try:\n"
        f"    proc.snapshot({target.pid})\n"
        "except errors.NotPermittedError as error:\n"
        "    print(error.message); print(error.hint)\n"
    )
    lines = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True).stdout.splitlines()
    nobody = pwd.getpwuid(65534).pw_name
    assert int(lines[0]) == proc.count(target.pid)  # the count needs no permission
    assert lines[1] == f"process {target.pid} belongs to root; {nobody} may not read its descriptors"
    assert f"sudo leakline {target.pid}" in lines[2]


def test_limits_command_and_start_time(start: Any) -> None:
    target = start(
        """
        import resource
        resource.setrlimit(resource.RLIMIT_NOFILE, (345, 678))
        """
    )
    assert (proc.limits(target.pid).soft, proc.limits(target.pid).hard) == (345, 678)
    assert proc.limits(os.getpid()).soft == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert proc.command(target.pid).startswith(f"{sys.executable} -c ")
    assert proc.started(os.getpid()) <= proc.started(target.pid)


def test_threads_tell_name_state_and_switches(start: Any) -> None:
    target = start(
        """
        import ctypes, threading
        def named():
            ctypes.CDLL(None).prctl(15, b"a (b) c", 0, 0, 0)
            ready.set()
            threading.Event().wait()
        ready = threading.Event()
        threading.Thread(target=named, daemon=True).start()
        ready.wait()
        """
    )
    threads = proc.snapshot(target.pid).threads
    assert [thread.tid for thread in threads] == sorted(int(tid) for tid in os.listdir(f"/proc/{target.pid}/task"))
    (named,) = (thread for thread in threads if thread.name == "a (b) c")
    assert named.state in "SR"
    assert named.context_switches is not None
    assert named.wait_channel != "0"
    assert proc.snapshot(target.pid, threads=False).threads == ()


def test_mapped_libraries_by_file_name(start: Any) -> None:
    target = start("")
    assert any(name.startswith(("libc.", "libc-")) for name in proc.snapshot(target.pid).libraries)
    assert proc.snapshot(target.pid, libraries=False).libraries == ()


@pytest.mark.parametrize("kind", [LeaklineError, *LeaklineError.__subclasses__()])
def test_errors_survive_pickling_and_show_what_to_do(kind: type[LeaklineError]) -> None:
    error = (
        AmbiguousNameError("two", "pick", ((1, "a"), (2, "b"))) if kind is AmbiguousNameError else kind("what", "do")
    )
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), vars(copy), str(copy)) == (kind, vars(error), f"{error.message}\n  {error.hint}")
