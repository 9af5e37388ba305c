"""Attaching through the process's own Python: the script that makes the calls, and, on 3.14, what ptrace cannot do."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
import time
from pathlib import Path

import pytest

from leakline import remote_exec
from leakline.recorder import by_python, gdb, ptrace
from leakline.recorder.attach import attach
from leakline.recorder.exports import Exports
from leakline.recorder.origins import origins
from leakline.recorder.ptrace import Status

HERE = Path(__file__).parent
INTERPRETERS = runpy.run_path(str(HERE.parent / "target/interpreters.py"))["interpreters"]()
NEW = pytest.mark.skipif(not remote_exec.possible(), reason="sys.remote_exec is of Python 3.14")
COMPUTES = """
import os, signal
{before}
def opens(number, frame):
    os.write(1, b"%d\\n" % os.open(os.devnull, os.O_RDONLY))
signal.signal(signal.SIGUSR1, opens)
print("ready", flush=True)
def compute():
    total = 0
    while True:
        total += 1
compute()
"""


@pytest.mark.parametrize("version", sorted(version for version in INTERPRETERS if version.startswith("3.1")))
def test_the_script_loads_a_library_and_calls_its_function(version: str, build: Path, tmp_path: Path) -> None:
    """As the process runs it, where `leakline` cannot be imported."""
    library = build / "called.so"
    offset = Exports.in_file(library).symbols(["spoil"])["spoil"]
    answers = []
    for number, (path, argument) in enumerate([(str(library), "/a/path"), (str(library), None), ("/no.so", "/a/path")]):
        place = tmp_path / f"answer{number}"
        file = tmp_path / "script.py"
        file.write_text(remote_exec.complete(by_python.script(offset, argument, path), str(place)))
        program = f"exec(compile(open({str(file)!r}).read(), 'script.py', 'exec'), {{}})"
        subprocess.run([INTERPRETERS[version], "-I", "-c", program], check=True, cwd=tmp_path, timeout=100)
        answers.append(json.loads(place.read_text()))
    assert [answer.get("result") for answer in answers] == [1, 1, None]
    assert "cannot open shared object file" in answers[2]["refused"]
    assert all(0 < answer["seconds"] < 10 for answer in answers)


def test_a_process_that_cannot_be_asked_is_left_to_others(build: Path) -> None:
    with subprocess.Popen([build / "waits", "nanosleep", "60000"]) as process:
        assert by_python.call(process.pid, 0) is None
        process.kill()


def started(before: str = "") -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", COMPUTES.format(before=before)], stdout=subprocess.PIPE, text=True
    )
    assert said(process) == "ready"
    return process


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def records_its_compute(process: subprocess.Popen[str]) -> None:
    folder = set(os.listdir("/tmp"))
    for _ in range(2):  # loaded, then found loaded
        with attach(process.pid) as attached:
            assert attached.by == "python"
            assert attached.held_s > 0
            process.send_signal(10)
            number = int(said(process))
            (origin,) = origins(attached.recording(), [number])
            assert [frame.function for frame in origin.frames if frame.language == "python"] == [
                "opens",
                "compute",
                "<module>",
            ]
        assert not Path(attached.path).exists()
    assert not [name for name in set(os.listdir("/tmp")) - folder if name.startswith("leakline-")]
    process.send_signal(10)
    assert int(said(process)) == number + 1
    assert process.poll() is None


@NEW
def test_python_that_only_computes_is_attached_to_without_gdb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ptrace, "PATIENCE_S", 0.3)
    monkeypatch.setattr(gdb, "installed", lambda: None)
    with started() as process:
        try:
            records_its_compute(process)
        finally:
            process.kill()


@NEW
def test_python_that_a_debugger_traces_or_that_ignores_segv_is_attached_to() -> None:
    seize = "import ctypes, sys; assert ctypes.CDLL(None).ptrace(0x4206, int(sys.argv[1]), 0, 0) == 0"
    with started("signal.signal(signal.SIGSEGV, signal.SIG_IGN)") as process:
        try:
            records_its_compute(process)
            command = [sys.executable, "-c", f"{seize}; print(); input()", str(process.pid)]
            with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as debugger:
                assert said(debugger) == ""
                records_signals_to_a_tracer(process, debugger)
        finally:
            process.kill()


def records_signals_to_a_tracer(process: subprocess.Popen[str], debugger: subprocess.Popen[str]) -> None:
    """A signal would stop it in front of its tracer: only that it begins and ends."""
    with attach(process.pid) as attached:
        assert attached.by == "python"
        assert attached.recording().live
    debugger.communicate("\n", timeout=60)
    process.send_signal(10)
    assert int(said(process)) > 0


@NEW
def test_python_that_waits_in_c_with_the_gil_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """When it comes to the request, that only takes itself away."""
    before = set(os.listdir("/tmp"))
    monkeypatch.setattr(by_python, "PATIENCE_S", 0.3)
    source = "import ctypes, time; print('ready', flush=True); ctypes.PyDLL(None).usleep(3000000); print('went on')"
    command = [sys.executable, "-W", "error", "-c", source]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert said(process) == "ready"
        time.sleep(0.1)
        assert by_python.call(process.pid, 0) is None
        out, complaints = process.communicate(timeout=60)
        assert (out, complaints, process.returncode) == ("went on\n", "", 0)
    assert not [name for name in set(os.listdir("/tmp")) - before if name.startswith("leakline-")]


def test_what_python_says_is_told() -> None:
    called = ptrace.Called(Status.FAILED, 0, 0, "ImportError('no ctypes')", 0.0, 0.0, 0, -1, False, by="python")
    assert called.why() == "its Python says: ImportError('no ctypes')"
