"""From a number or a name to a process."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from leakline import proc
from leakline.errors import AmbiguousNameError, NoSuchProcessError, UsageError

WAIT = "import sys\nprint('ready', flush=True)\nsys.stdin.read()\n"


@contextmanager
def running(*command: str) -> Iterator[int]:
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process.pid
        process.kill()


def test_a_number_is_taken_as_it_is() -> None:
    assert proc.find(str(os.getpid())) == os.getpid()
    with pytest.raises(NoSuchProcessError):
        proc.find("999999999")


def test_the_number_of_a_thread_means_its_process() -> None:
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        assert proc.find(str(thread.native_id)) == os.getpid()
    finally:
        done.set()
        thread.join()


def test_the_script_of_an_interpreter_with_and_without_suffix(tmp_path: Path) -> None:
    script = tmp_path / "leakline_find_me.py"
    script.write_text(WAIT)
    with running(sys.executable, "-u", str(script)) as pid:
        assert proc.find("leakline_find_me.py") == pid
        assert proc.find("leakline_find_me") == pid


def test_a_program_whose_name_is_longer_than_the_kernel_keeps(tmp_path: Path) -> None:
    name = "leakline-has-a-rather-long-name"
    (tmp_path / name).symlink_to("/bin/sh")
    with running(str(tmp_path / name), "-c", "echo ready; read line; :") as pid:
        assert proc.find(name) == pid
        assert proc.find(name[:15]) == pid


def test_several_are_listed_and_none_is_chosen(tmp_path: Path) -> None:
    script = tmp_path / "leakline_twice.py"
    script.write_text(WAIT)
    with running(sys.executable, str(script)) as one, running(sys.executable, str(script)) as two:
        with pytest.raises(AmbiguousNameError) as caught:
            proc.find("leakline_twice")
        assert [pid for pid, _ in caught.value.candidates] == sorted([one, two])
        assert all(str(pid) in caught.value.message for pid in (one, two))
        assert caught.value.exit_code == 2


def test_a_candidates_command_line_cannot_control_the_terminal(tmp_path: Path) -> None:
    script = tmp_path / "leakline_nasty.py"
    script.write_text(WAIT)
    nasty = "\x1b[2J\n\n"
    with (
        running(sys.executable, str(script), nasty),
        running(sys.executable, str(script), nasty),
        pytest.raises(AmbiguousNameError) as caught,
    ):
        proc.find("leakline_nasty")
    assert "\x1b" not in caught.value.message
    assert len(caught.value.message.splitlines()) == 3


def test_never_itself(tmp_path: Path) -> None:
    script = tmp_path / "leakline_looks_for_itself.py"
    script.write_text(
        "from leakline import errors, proc\n"
        "try:\n    proc.find('leakline_looks_for_itself')\n"
        "except errors.NoSuchProcessError as error:\n    print(error.message)\n"
    )
    output = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True).stdout
    assert output == "no process is named 'leakline_looks_for_itself'\n"


def test_a_near_miss_is_suggested(tmp_path: Path) -> None:
    script = tmp_path / "leakline_almost.py"
    script.write_text(WAIT)
    with running(sys.executable, str(script)), pytest.raises(NoSuchProcessError) as caught:
        proc.find("leakline_almots")
    assert "leakline_almost" in caught.value.hint


def test_an_empty_name_is_no_name() -> None:
    for name in ("", "  "):
        with pytest.raises(UsageError, match="empty name"):
            proc.find(name)
