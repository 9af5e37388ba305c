"""The command line as a user meets it: output, exit codes, and errors that say what to type next."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

Ran = dict[str, tuple[int, str, str, int]]
MAIN = [sys.executable, "-c", "from leakline.commands import main; main()"]


@pytest.fixture(scope="module")
def ran(shared_targets: Any) -> Ran:
    """The commands that take seconds, run at the same time: name -> (exit code, stdout, stderr, pid looked at)."""
    leaking = shared_targets.launch("leak", "eventfd")
    resting = shared_targets.launch("zmq_idle")
    for process in (leaking, resting):
        shared_targets.wait(process)
    commands = {
        "leak": (leaking, ["--for", "4s", "--limit", "1024"]),
        "json": (resting, ["--json", "--for", "3.5s"]),
        "watch": (leaking, ["watch", "--for", "4s", "--every", "500ms"]),
    }
    started = {}
    for name, (process, words) in commands.items():
        command = [*MAIN, *words, str(process.pid)]
        started[name] = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    shown = run_on_terminal(["watch", str(leaking.pid), "--for", "4s"])
    results = {"terminal": (0, shown, "", leaking.pid)}
    for name, process in started.items():
        out, err = process.communicate()
        results[name] = (process.returncode, out, err, commands[name][0].pid)
    return results


def test_a_leak_is_the_first_word_and_exit_code_1(ran: Ran) -> None:
    code, out, err, pid = ran["leak"]
    assert code == 1
    assert out.startswith("LEAK  eventfd +")
    assert "reaches the --limit of 1 024 in" in out.splitlines()[0]
    assert "growth.eventfd" in out
    assert f"leakline diff {pid}" in out
    assert "\033" not in out
    assert err == ""


def test_json_is_one_object_on_stdout(ran: Ran) -> None:
    code, out, err, pid = ran["json"]
    report = json.loads(out)
    assert (report["schema"], report["pid"], report["verdict"], report["findings"]) == (1, pid, "steady", [])
    assert code == 0
    assert err == ""


def test_watch_piped_prints_plain_lines_and_the_verdict(ran: Ran) -> None:
    code, out, _, _ = ran["watch"]
    lines = out.splitlines()
    assert code == 1
    assert sum("eventfd=" in line for line in lines) >= 4
    assert any(line.startswith("LEAK  eventfd +") for line in lines)
    assert "\033" not in out


def test_watch_on_a_terminal_draws_a_chart(ran: Ran) -> None:
    shown = ran["terminal"][1]
    assert "▁" in shown
    assert "█" in shown
    assert "growth.eventfd" in shown


def test_doctor_is_what_an_argument_without_a_subcommand_means(cli: Any, targets: Any) -> None:
    process = targets.start("churn_files")
    for words in (["doctor", str(process.pid)], [str(process.pid)]):
        assert cli(*words, "--for", "100ms", "--json").returncode == 0


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["999999999"], 3, "no process 999999999"),
        (["no-such-program-anywhere"], 3, "no-such-program-anywhere"),
        (["1", "--for", "10x"], 2, "500ms, 10s"),
        (["1", "--for", "0s"], 2, "out of range"),
        (["1", "--limit", "0"], 2, "--limit"),
        (["1", "--limit", "many"], 2, "--limit"),
        (["watch"], 2, "PID|NAME"),
        (["diff", "1", "--repeat", "0"], 2, "--repeat"),
        (["--no-such-option"], 2, "--no-such-option"),
    ],
)
def test_errors_name_the_thing_and_have_their_exit_code(cli: Any, words: list[str], code: int, told: str) -> None:
    ran = cli(*words)
    assert ran.returncode == code, ran.stderr
    assert told in ran.stderr
    assert ran.stdout == ""
    assert "Traceback" not in ran.stderr


def test_an_ambiguous_name_lists_the_candidates(cli: Any, targets: Any) -> None:
    processes = [targets.start("churn_files"), targets.start("churn_files")]
    ran = cli("targets.py", "--for", "100ms")
    assert ran.returncode == 2
    assert all(str(process.pid) in ran.stderr for process in processes)


def test_help_and_version(cli: Any) -> None:
    assert cli("--version").stdout.startswith("leakline ")
    for words in ([], ["diff"]):
        ran = cli(*words, "--help")
        assert ran.returncode == 0
        assert "leakline diff 1234" in ran.stdout


def test_help_is_quick_because_rich_is_left_alone() -> None:
    code = "import sys; import leakline.commands.app; print('rich' in sys.modules, 'asyncio' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).split() == ["False", "False"]


def test_completion_lists_the_subcommands(cli: Any) -> None:
    ran = cli(_LEAKLINE_COMPLETE="complete_bash", COMP_WORDS="leakline ", COMP_CWORD="1")
    assert {"doctor", "ls", "watch", "diff"} <= set(ran.stdout.split())


def test_watch_ends_with_its_process(cli: Any, targets: Any) -> None:
    process = targets.start("leak_until_limit", "40")
    ran = cli("watch", str(process.pid), "--json", "--every", "100ms")
    reports = [json.loads(line) for line in ran.stdout.splitlines()]
    assert reports
    assert {report["pid"] for report in reports} == {process.pid}


def test_colours_are_off_under_no_color(targets: Any) -> None:
    process = targets.start("leak", "eventfd")
    words = [str(process.pid), "--for", "200ms"]
    assert "\033[1" in run_on_terminal(words)
    assert "\033[1" not in run_on_terminal(words, NO_COLOR="1")


def test_a_terminal_without_utf8_gets_ascii(cli: Any, targets: Any) -> None:
    process = targets.start("leak", "eventfd")
    ran = cli(str(process.pid), "--for", "200ms", PYTHONIOENCODING="ascii")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.isascii()


def run_on_terminal(words: list[str], **environment: str) -> str:
    """Run the command line on a pseudo-terminal and return all that it wrote there."""
    ours, theirs = pty.openpty()
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR", "TERM")}
    environment = {**kept, "PYTHONUTF8": "1", "TERM": "xterm-256color", "COLUMNS": "100", **environment}
    with subprocess.Popen([*MAIN, *words], stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                data = os.read(ours, 65536)
            except OSError:  # EIO: the last writer has closed the terminal
                break
            shown += data
        process.wait()
    os.close(ours)
    return shown.decode()


class Differ:
    """`leakline diff` with its prompts answered as they appear."""

    def __init__(self, *words: str) -> None:
        self.process = subprocess.Popen(
            [*MAIN, "diff", *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def until(self, told: str) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if told in line:
                return
        pytest.fail(f"never said {told!r}")

    def enter(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()


def act(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("go\n")
    process.stdin.flush()
    assert process.stdout.readline() == "done\n"


def test_diff_tells_what_stays_and_names_the_residue(targets: Any) -> None:
    process = targets.start("on_request")
    differ = Differ(str(process.pid), "--repeat", "2", "--json")
    differ.until("Press Enter")
    differ.enter()
    for _ in range(2):
        differ.until("Do the action")
        act(process)
        differ.enter()
    out, _ = differ.process.communicate()
    found = json.loads(out)
    assert differ.process.returncode == 1
    for each in found["rounds"]:
        assert [(group["kind"], group["count"]) for group in each["opened"]] == [("tcp", 1), ("tcp", 1)]
        assert ("file", "/etc/hostname") in [(group["kind"], group["peer"]) for group in each["opened_and_closed"]]
        assert each["closed"] == []
    assert [(item["kind"], item["each"]) for item in found["residue"]] == [("tcp", 1), ("tcp", 1)]
    assert any("ESTABLISHED" in item["peer"] for item in found["residue"])


def test_diff_of_an_action_that_does_nothing(targets: Any) -> None:
    process = targets.start("zmq_idle")
    differ = Differ(str(process.pid))
    differ.until("Press Enter")
    differ.enter()
    differ.until("Do the action")
    differ.enter()
    out, _ = differ.process.communicate()
    assert differ.process.returncode == 0
    assert "opened and still open: nothing" in out
    assert "can be missed" in out


def test_diff_without_a_keyboard_says_so(targets: Any) -> None:
    process = targets.start("zmq_idle")
    differ = Differ(str(process.pid))
    out, err = differ.process.communicate(input="")
    assert differ.process.returncode == 2
    assert "stdin ended" in err
    assert out == ""


def test_ctrl_c_reports_what_was_seen_by_then(targets: Any) -> None:
    process = targets.start("churn_files")
    ours, theirs = pty.openpty()
    words = [*MAIN, str(process.pid), "--for", "1h"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=theirs, text=True) as doctor:
        try:
            os.close(theirs)
            told, end = b"", time.monotonic() + 20
            while b"observing" not in told:  # its progress line: the observation is under way
                assert time.monotonic() < end
                told += os.read(ours, 4096)
            doctor.send_signal(signal.SIGINT)
            out, _ = doctor.communicate(timeout=30)
        finally:
            doctor.kill()
            os.close(ours)
    assert f"{process.pid}" in out
    assert doctor.returncode == 0


def test_names_of_files_reach_neither_the_terminal_nor_json_raw(targets: Any, tmp_path: Path) -> None:
    process = targets.start("weird_names", str(tmp_path))
    pid = str(process.pid)
    commands = (["ls", pid], ["ls", pid, "--json"], [pid, "--for", "3.5s"], [pid, "--for", "3.5s", "--json"])
    running = [subprocess.Popen([*MAIN, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE) for words in commands]
    differ = Differ(pid)
    differ.until("Press Enter")
    differ.enter()
    differ.until("Do the action")
    time.sleep(0.3)  # the action: it opens some
    differ.enter()
    told = differ.process.communicate()[0].encode()
    assert b"line\\nline" in told
    outs = [told]
    for words, command in zip(commands, running, strict=True):
        out, err = command.communicate()
        assert err == b"", err
        outs.append(out)
        if "--json" in words:
            json.loads(out)
            out = out.replace(b"\\\\", b"\\")  # JSON's own escape
        assert b"\\xff\\xfe" in out, words
    assert [out for out in outs if b"\033" in out] == []


def test_a_reader_that_goes_away_is_no_leak(targets: Any) -> None:
    process = targets.start("churn_files")
    words = [*MAIN, "watch", str(process.pid), "--every", "100ms"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as watch:
        assert watch.stdout is not None
        assert watch.stderr is not None
        assert watch.stdout.readline()
        watch.stdout.close()
        assert watch.wait(30) == 141
        assert watch.stderr.read() == b""


def test_what_cannot_be_written_or_typed_is_an_error_of_one_line(targets: Any) -> None:
    pid = str(targets.start("churn_files").pid)
    for redirection, words, code, told in (
        (">/dev/full", ["ls", pid], 3, "No space left on device"),
        (">&-", [pid], 3, "stdout is closed"),
        ("<&-", ["diff", pid], 2, "stdin is closed"),
        ("2>&-", ["ls", pid], 0, ""),
    ):
        ran = subprocess.run(
            ["sh", "-c", f'exec "$@" {redirection}', "sh", *MAIN, *words], capture_output=True, text=True, timeout=30
        )
        assert (ran.returncode, "Traceback" in ran.stderr) == (code, False), ran.stderr
        assert told in ran.stderr


def test_without_a_descriptor_to_spare_it_says_what_to_raise(targets: Any) -> None:
    pid = str(targets.start("churn_files").pid)
    starved = (
        "import os, resource\n"
        "from leakline.commands import main\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))\n"
        "main()"
    )
    ran = subprocess.run([sys.executable, "-c", starved, pid], capture_output=True, text=True, timeout=30)
    assert ran.returncode == 3, ran.stderr
    assert "Traceback" not in ran.stderr
    assert "ulimit -n" in ran.stderr


@pytest.mark.parametrize("module", ["typer", "leakline.observe", "leakline.proc.sockets"])
def test_ctrl_c_while_it_starts_is_no_traceback(module: str) -> None:
    interrupted = (
        "import sys\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, *_):\n"
        f"        if name == {module!r}: raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupt())\n"
        "from leakline.commands import main\n"
        "main()"
    )
    ran = subprocess.run([sys.executable, "-c", interrupted, "1"], capture_output=True, text=True, timeout=30)
    assert (ran.returncode, ran.stderr) == (130, "")


def test_progress_fits_into_a_narrow_terminal(targets: Any) -> None:
    pid = str(targets.start("churn_files").pid)
    shown = run_on_terminal([pid, "--for", "600ms"], COLUMNS="40")
    progress = [each for each in shown.replace("\033[K", "").split("\r") if each.startswith("observing")]
    assert progress
    assert max(map(len, progress)) < 40


def test_diff_of_a_process_that_dies_in_the_action_tells_what_it_left(targets: Any) -> None:
    process = targets.start("on_request")
    differ = Differ(str(process.pid), "--repeat", "2")
    differ.until("Press Enter")
    differ.enter()
    differ.until("Do the action")
    act(process)
    differ.enter()
    differ.until("2 of 2")
    process.kill()
    process.wait()
    differ.enter()
    out, err = differ.process.communicate()
    assert differ.process.returncode == 3
    assert f"process {process.pid} ended during action 2 of 2" in err
    assert "Action 1 of 2\nopened and still open: 2" in out


def test_which_objects_keep_what_leaks_or_why_that_is_not_told(targets: Any, cli: Any) -> None:
    target = targets.start("leak", "tcp")
    done = cli(str(target.pid), "--objects", "--for", "4s", "--json")
    if not hasattr(sys, "remote_exec"):
        assert (done.returncode, done.stdout) == (3, "")
        assert "by Python 3.14 or later only" in done.stderr
        return
    found = {finding["id"]: finding for finding in json.loads(done.stdout)["findings"]}
    assert "python.lost" in found, done.stdout + done.stderr
    assert done.stderr == ""
    assert not list(Path("/tmp").glob("leakline-*/look.py"))
