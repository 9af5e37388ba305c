"""`pytest --leakline`: which tests it fails, what it says, beside xdist, asyncio and subprocesses."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from leakline.recorder.merge import is_interpreter

pytestmark = pytest.mark.timeout(600)
FOLDER = Path(__file__).parent
SUITE = FOLDER / "leaky_suite.py"
LEAKING = re.compile(r"(?:leaky_suite\.py::)([\w:\[\]-]+) LEAK|LEAK leaky_suite\.py::([\w:\[\]-]+)\s*$", re.MULTILINE)
CONFIGURATION = """
[pytest]
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
pythonpath = {folder}
leakline_allow =
    /etc/hostname
"""


def run(folder: Path, *words: str, suite: Path = SUITE) -> subprocess.CompletedProcess[str]:
    """Runs pytest in a folder of its own, with a copy of the suite."""
    (folder / "pytest.ini").write_text(CONFIGURATION.format(folder=FOLDER))
    (folder / suite.name).write_text(suite.read_text())
    command = [sys.executable, "-m", "pytest", "-W", "ignore", "-p", "no:randomly", "-p", "no:cacheprovider", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=540)


def leaking(ran: subprocess.CompletedProcess[str]) -> set[str]:
    return {(first or second) for first, second in LEAKING.findall(ran.stdout)}


def told(name: str, ran: subprocess.CompletedProcess[str]) -> str:
    """The part of the section that is about one test."""
    _, _, section = ran.stdout.partition("DESCRIPTOR PROBLEMS ===")
    found = re.search(
        rf"^_+ \S*{re.escape(name)}\b[^\n]*\n(.*?)(?=^_{{3}}|^leakline:)", section, re.MULTILINE | re.DOTALL
    )
    assert found is not None, section
    return found[1]


MUST_LEAK = {
    "test_leaks_kept",
    "test_leaks_number",
    "test_leaks_detached",
    "test_leaks_pipe_of_child",
    "TestFixtureAtItsEnd::test_leaks_fixture",
    "test_list_of_a_module[leaks_then]",
    "test_leaks_beside_allowed",
    "test_async_leaks",
}


def _nameless() -> tuple[str, ...]:
    """The modules inside of the interpreter whose functions have no names, because it is stripped (Debian's is)."""
    with open("/proc/self/maps") as maps:
        files = {line.split(maxsplit=5)[5].strip() for line in maps if " r-xp " in line and line.count(" /")}
    commands = [["readelf", "-SW", file] for file in files if is_interpreter(file)]
    parts = [subprocess.run(command, capture_output=True, text=True, check=True).stdout for command in commands]
    return () if all(".symtab" in part for part in parts) else sys.builtin_module_names


NAMELESS = _nameless()


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    """The suite in one process, its tests in order."""
    return run(tmp_path_factory.mktemp("alone"), "--leakline", "-v", SUITE.name)


def test_what_leaks_fails_and_nothing_else(alone: subprocess.CompletedProcess[str]) -> None:
    assert leaking(alone) == MUST_LEAK, alone.stdout + alone.stderr
    assert alone.returncode == 1
    assert f"{len(MUST_LEAK) + 1} failed, " in alone.stdout  # and the one that fails by itself


def test_the_section_names_kind_holder_and_line(alone: subprocess.CompletedProcess[str]) -> None:
    kept = told("test_leaks_kept", alone)
    assert kept.startswith("1 tcp: tcp, neither address nor peer\n")
    assert "retained: a socket.socket, held by item of a list of 1 <- global KEPT of" in kept
    assert re.search(r"1 × connect  \S+leaky_suite\.py:22\n", kept)
    assert "sock_initobj" in kept or "_socket" in NAMELESS  # the native frames, too
    assert "_pytest" not in kept
    number = told("test_leaks_number", alone)
    assert number.startswith("1 file: /etc/passwd\n  lost: ")
    assert "os_open" in number or "posix" in NAMELESS
    assert "lost: " in told("test_leaks_detached", alone)
    assert "attribute stdout of subprocess.Popen" in told("test_leaks_pipe_of_child", alone).replace("\n    ", " ")
    assert told("test_leaks_beside_allowed", alone).startswith("1 eventfd")
    assert "test_async_leaks" in told("test_async_leaks", alone)
    assert "fixture half (class)" in alone.stdout


def test_what_did_not_count_is_told(alone: subprocess.CompletedProcess[str]) -> None:
    last = next(line for line in alone.stdout.splitlines() if line.startswith("leakline: "))
    assert "2 not, as they failed" in last
    counts = "not counted: 1 opened by imports, 3 first of a cache of a module, 2 held by fixtures, 7 allowed"
    assert counts in last
    assert max(map(len, alone.stdout.splitlines())) < 1000


def test_workers_look_and_the_controller_reports(tmp_path: Path) -> None:
    names = ("test_leaks_kept", "test_closes", "test_cache_fills", "test_allowed_altogether", "test_async_closes")
    ran = run(tmp_path, "--leakline", "-v", "-n", "2", *(f"{SUITE.name}::{name}" for name in names))
    assert leaking(ran) == {"test_leaks_kept"}, ran.stdout + ran.stderr
    assert "global KEPT of" in told("test_leaks_kept", ran)
    assert "5 tests judged; not counted: 1 first of a cache of a module, 1 allowed" in ran.stdout


def test_without_lines_it_says_so(tmp_path: Path) -> None:
    words = [f"{SUITE.name}::test_leaks_kept", f"{SUITE.name}::test_closes"]
    ran = run(tmp_path, "--leakline", "--leakline-no-lines", "-q", *words)
    assert "1 failed, 2 passed" in ran.stdout, ran.stdout
    assert "opened by: not recorded (--leakline-no-lines)" in ran.stdout
    assert "lines are not known" in ran.stdout


def test_a_clean_run_says_nothing(tmp_path: Path) -> None:
    words = [f"{SUITE.name}::test_closes", f"{SUITE.name}::test_skips", f"{SUITE.name}::test_fork"]
    ran = run(tmp_path, "--leakline", "-q", *words)
    assert (ran.returncode, "leakline" in ran.stdout, "DESCRIPTOR" in ran.stdout) == (0, False, False)


def test_not_asked_for_it_is_not_there(tmp_path: Path) -> None:
    ran = run(tmp_path, "-q", f"{SUITE.name}::test_leaks_kept", f"{SUITE.name}::test_allowed_kind", "--strict-markers")
    assert ran.returncode == 0, ran.stdout
    program = "import sys, leakline.pytest_plugin; print([m for m in sys.modules if m.startswith('leakline.')])"
    loaded = subprocess.check_output([sys.executable, "-c", program], text=True)
    assert loaded == "['leakline.pytest_plugin']\n"


def test_a_run_without_a_leak_does_not_pay_for_naming_one(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(
        "import pathlib, sys\ndef pytest_unconfigure():\n    pathlib.Path('loaded').write_text(' '.join(sys.modules))\n"
    )
    heavy = {
        "msgspec",
        "leakline.facts",
        "leakline.proc",
        "leakline.recorder.recording_file",
        "leakline.own_process.leaks",
    }

    def loaded(name: str) -> set[str]:
        run(tmp_path, "--leakline", f"{SUITE.name}::{name}")
        return set((tmp_path / "loaded").read_text().split())

    assert loaded("test_closes") & heavy == set()
    assert loaded("test_leaks_kept") >= heavy


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--leakline", "--leakline-grace=-1"), "give 0 or more seconds"),
        (("--leakline", "wrong_marker.py"), "leakline(allow=3) means nothing: write allow=True"),
    ],
)
def test_a_mistake_is_told_in_a_line(tmp_path: Path, words: tuple[str, ...], says: str) -> None:
    wrong = "import pytest\n@pytest.mark.leakline(allow=3)\ndef test_it(): pass\n"
    (tmp_path / "wrong_marker.py").write_text(wrong)
    ran = run(tmp_path, *words)
    assert ran.returncode == 4, ran.stdout
    assert says in ran.stderr + ran.stdout
    assert "Traceback" not in ran.stderr + ran.stdout


def test_the_plugin_of_an_outer_run_is_shared(tmp_path: Path) -> None:
    inner = tmp_path / "test_inner.py"
    inner.write_text(
        "import os, leakline, pytest\n"
        "def test_it():\n"
        "    with pytest.raises(leakline.DescriptorLeakError) as caught, leakline.no_leak():\n"
        "        left = os.eventfd(0)\n"
        "    assert caught.value.leaks[0].frames\n"
        "    os.close(left)\n"
        "def test_leaks():\n"
        "    os.eventfd(0)\n"
    )
    ran = run(tmp_path, "--leakline", "-q", inner.name)
    assert "1 failed, 2 passed" in ran.stdout, ran.stdout
    assert "test_inner.py:8" in ran.stdout


def run_suite(folder: Path, suite: str, *words: str, limits: str = "") -> subprocess.CompletedProcess[str]:
    """Runs a suite of a few lines under --leakline, in a shell that sets limits before."""
    (folder / "pytest.ini").write_text("[pytest]\n")
    (folder / "test_it.py").write_text(suite)
    command = f"{limits}exec {sys.executable} -m pytest -q -p no:randomly -p no:cacheprovider -W ignore --leakline "
    return subprocess.run(
        ["/bin/bash", "-c", command + " ".join(words)], cwd=folder, capture_output=True, text=True, timeout=540
    )


def test_a_fixture_that_closes_nothing_is_named(tmp_path: Path) -> None:
    """Its last test opens nothing, and its end closes nothing: nothing moves, and it leaks all the same."""
    ran = run_suite(
        tmp_path,
        "import os, pytest\n"
        "@pytest.fixture(scope='class')\n"
        "def of_class():\n"
        "    os.open('/dev/null', 0); yield 1\n"
        "@pytest.fixture(scope='module')\n"
        "def of_module():\n"
        "    os.open('/dev/zero', 0); yield 1\n"
        "class TestIt:\n"
        "    def test_1(self, of_class): pass\n"
        "    def test_2(self, of_class): pass\n"
        "def test_3(of_module): pass\n"
        "def test_4(): pass\n",
    )
    assert "TestIt::test_2 - left open by fixture of_class (class)" in ran.stdout, ran.stdout
    assert "test_4 - left open by fixture of_module (module)" in ran.stdout, ran.stdout
    assert "2 failed, 4 passed" in ran.stdout


FILLS = """
import os
def test_fills():
    try:
        while True:
            os.open('/dev/null', 0)
    except OSError:
        pass
def test_leaks_nothing(): pass
def test_gives_back():
    os.closerange(30, 64)
def test_leaks():
    os.eventfd(0)
"""


@pytest.mark.parametrize(("limits", "named"), [("ulimit -S -n 64; ", True), ("ulimit -n 64; ", False)])
def test_the_last_descriptor_is_told_too(tmp_path: Path, limits: str, named: bool) -> None:
    ran = run_suite(tmp_path, FILLS, limits=limits)
    assert "INTERNALERROR" not in ran.stdout, ran.stdout
    assert re.search(r"test_fills - left open: \d+ (device|path)", ran.stdout), ran.stdout
    assert ("opened by test_fills (test_it.py:6)" in " ".join(ran.stdout.split())) is named, ran.stdout
    assert "LEAK test_it.py::test_leaks -" in ran.stdout, ran.stdout
    assert "4 passed" in ran.stdout


def test_a_stopped_clock_stops_nothing(tmp_path: Path) -> None:
    ran = run_suite(
        tmp_path,
        "import os, time, pytest\n"
        "@pytest.fixture(scope='session', autouse=True)\n"
        "def stopped():\n"
        "    with pytest.MonkeyPatch.context() as patch:\n"
        "        patch.setattr(time, 'monotonic', lambda: 1000.0)\n"
        "        yield\n"
        "def test_leaks():\n"
        "    os.eventfd(0)\n"
        "def test_last(): pass\n",  # the session ends with it
    )
    assert "LEAK test_it.py::test_leaks" in ran.stdout, ran.stdout


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        ("os, 'open'", "leakline: 1 tests judged; 2 not, as leakline could not look: RuntimeError: mocked"),
        ("builtins, 'open'", "left open: 1 eventfd; leakline could not tell more"),
    ],
)
def test_what_stands_in_the_way_costs_no_test(tmp_path: Path, broken: str, says: str) -> None:
    """A mock of a wider scope, still in force after the test."""
    ran = run_suite(
        tmp_path,
        "import builtins, os, pytest\n"
        "def mocked(*words, **named): raise RuntimeError('mocked')\n"
        "@pytest.fixture(scope='class')\n"
        "def broken():\n"
        "    with pytest.MonkeyPatch.context() as patch:\n"
        f"        patch.setattr({broken}, mocked)\n"
        "        yield\n"
        "class TestIt:\n"
        "    def test_1(self, broken):\n"
        "        os.eventfd(0)\n"
        "    def test_2(self, broken): pass\n"
        "def test_3(): pass\n",
        "-v",
    )
    assert "INTERNALERROR" not in ran.stdout, ran.stdout
    assert says in ran.stdout, ran.stdout
    assert "3 passed" in ran.stdout
