"""leakline.snapshot, diagnose and no_leak, on this very process and on others; the examples of docs/api.md."""

from __future__ import annotations

import asyncio
import gc
import os
import pickle
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import leakline
from leakline.errors import NoSuchProcessError, UsageError

PAGE = Path(__file__).parents[3] / "docs" / "api.md"
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_an_example_of_the_page_runs(number: int, tmp_path: Path) -> None:
    program = tmp_path / "example.py"
    program.write_text(EXAMPLES[number])
    ran = subprocess.run([sys.executable, "-W", "error", program], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr


def test_the_page_has_examples() -> None:
    assert len(EXAMPLES) >= 4


def test_importing_it_loads_nothing_else() -> None:
    program = "import sys, leakline; print([name for name in sys.modules if name.startswith('leakline.')])"
    assert subprocess.check_output([sys.executable, "-c", program], text=True) == "[]\n"
    assert {"no_leak", "snapshot", "diagnose", "DescriptorLeakError"} <= set(dir(leakline))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        leakline.nothing  # type: ignore[attr-defined]  # noqa: B018


def numbers() -> list[str]:
    return os.listdir("/proc/self/fd")


def test_a_leak_is_raised_with_kind_and_line() -> None:
    before = numbers()
    with pytest.raises(leakline.DescriptorLeakError) as caught, leakline.no_leak():
        read, write = os.pipe()
    assert [(leak.number, leak.kind) for leak in caught.value.leaks] == [(read, "pipe"), (write, "pipe")]
    assert {leak.frames[leak.headline].function for leak in caught.value.leaks} == {
        "test_a_leak_is_raised_with_kind_and_line"
    }
    assert "2 descriptors were left open" in str(caught.value)
    assert f"{Path(__file__).name}:" in str(caught.value)
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (str(copy), copy.leaks) == (str(caught.value), caught.value.leaks)
    os.close(read)
    os.close(write)
    assert numbers() == before


def test_what_is_closed_in_time_is_no_leak() -> None:
    with leakline.no_leak():
        with socket.socket(), open(os.devnull):
            pass
        kept = socket.socket()
        threading.Timer(0.05, kept.close).start()


def test_what_waits_for_the_collector_only_is_no_leak() -> None:
    gc.disable()
    try:
        with leakline.no_leak():
            cycle: list[object] = [os.fdopen(os.open(os.devnull, os.O_RDONLY), "rb", 0)]
            cycle.append(cycle)
            del cycle
            with pytest.warns(ResourceWarning):
                gc.collect()
    finally:
        gc.enable()


def test_a_number_that_is_given_out_again_is_another_descriptor() -> None:
    @leakline.no_leak(grace_s=0)
    def replace() -> None:
        os.close(first)
        assert os.eventfd(0) == first

    first = os.eventfd(0)
    with pytest.raises(leakline.DescriptorLeakError):
        replace()
    os.close(first)


def test_an_error_of_the_block_is_passed_on_unchecked() -> None:
    opened = []

    @leakline.no_leak()
    def fail() -> None:
        opened.append(os.eventfd(0))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    os.close(opened[0])


def test_blocks_inside_each_other_and_in_threads_share_one_recording() -> None:
    @leakline.no_leak()
    def work() -> None:
        for _ in range(5):
            with leakline.no_leak(), open(os.devnull):
                pass

    before = numbers()
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert numbers() == before


async def test_around_an_await() -> None:
    with leakline.no_leak():
        reader, writer = await asyncio.open_connection(sock=_connected())
        writer.close()
        await writer.wait_closed()
        del reader


def _connected() -> socket.socket:
    here, there = socket.socketpair()
    there.close()
    return here


def test_a_child_that_leaves_the_block_checks_nothing_and_can_begin_afresh() -> None:
    pid = os.getpid()
    with leakline.no_leak():
        child = os.fork()
        if child == 0:
            os.eventfd(0)
    if os.getpid() != pid:
        status = 1
        try:
            with leakline.no_leak(grace_s=0):
                os.eventfd(0)
        except leakline.DescriptorLeakError as error:
            status = 0 if error.leaks[0].frames else 2
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0


def test_without_the_recorder_kinds_are_told_and_why_there_is_no_line(monkeypatch: pytest.MonkeyPatch) -> None:
    left = 0
    unasked = pytest.raises(leakline.DescriptorLeakError, match=r"not recorded \(record=False\)")
    with unasked, leakline.no_leak(record=False):
        left = os.eventfd(0)
    os.close(left)
    monkeypatch.setattr("leakline.own_process.recorder.LIBRARY", Path("/no/such/library.so"))
    missing = pytest.raises(leakline.DescriptorLeakError, match=r"the recorder could not be loaded: .*no/such/library")
    with missing, leakline.no_leak():
        left = os.eventfd(0)
    os.close(left)


def test_values_without_meaning_are_refused() -> None:
    with pytest.raises(UsageError, match="cannot wait"), leakline.no_leak(grace_s=-1):
        pass
    with pytest.raises(UsageError, match="cannot observe"):
        leakline.diagnose(seconds=0)
    with pytest.raises(NoSuchProcessError):
        leakline.snapshot(4_194_305)


def test_a_process_finds_its_own_leak() -> None:
    opened: list[socket.socket] = []
    done = threading.Event()

    def leak() -> None:
        while not done.wait(0.05):
            opened.append(socket.socket())

    thread = threading.Thread(target=leak)
    thread.start()
    try:
        report = leakline.diagnose(seconds=4.0)
    finally:
        done.set()
        thread.join()
        for each in opened:
            each.close()
    assert report.pid == os.getpid()
    assert report.verdict == "leak"
    kept = next(finding for finding in report.findings if finding.id == "python.retained")
    assert "socket.socket ← item of a list of" in kept.title


def test_another_process_is_looked_at(targets: Any) -> None:
    target = targets.start("churn_files")
    seen = leakline.snapshot(target.pid)
    assert seen.pid == target.pid
    assert seen.counts().keys() >= {"pipe"}
    assert leakline.diagnose(target.pid, 0.2).pid == target.pid


def test_the_last_descriptor_is_told_too() -> None:
    """Where the hard limit allows no more either: kinds and numbers then, and no line."""
    program = (
        "import os, resource, leakline\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))\n"
        "try:\n"
        "    with leakline.no_leak():\n"
        "        try:\n"
        "            while True: os.open('/dev/null', 0)\n"
        "        except OSError: pass\n"
        "except leakline.DescriptorLeakError as error:\n"
        "    print(len(error.leaks), {leak.kind for leak in error.leaks})\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert re.fullmatch(r"3\d \{'device'\}\n", ran.stdout), ran.stdout + ran.stderr
