"""`leakline run` and `report`: real commands, launched as a user would."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Cli = Callable[..., "subprocess.CompletedProcess[str]"]
LEAKLINE = [sys.executable, "-c", "from leakline.commands import main; main()"]

LEAKING = """
import os, socket, sys, time
def connect_once():
    kept = socket.socket()
    try:
        kept.connect(("127.0.0.1", 1))
    except OSError:
        return kept.detach()
def login():
    return connect_once()
for _ in range(40):
    login()
    open(os.devnull).close()
    time.sleep(0.015)  # it goes on: not a pool that is filled at once
print("done")
print("complained", file=sys.stderr)
sys.exit(3)
"""
TIDY = "import socket\nfor _ in range(40):\n    socket.socket().close()\n"
FULL = """
import os, resource, time
resource.setrlimit(resource.RLIMIT_NOFILE, (48, 48))
def grab():
    return os.dup(0)
try:
    while True:
        grab()
except OSError:
    print("refused", flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Recordings of these tests lie in a folder of their own."""
    folder = tmp_path / "recordings"
    monkeypatch.setenv("LEAKLINE_DIR", str(folder))
    return folder


def program(folder: Path, source: str) -> str:
    path = folder / "program.py"
    path.write_text(source)
    return str(path)


def test_the_report_names_the_line_and_the_command_keeps_its_streams_and_status(
    cli: Cli, tmp_path: Path, own_folder: Path
) -> None:
    done = cli("run", "--", sys.executable, program(tmp_path, LEAKING))
    assert (done.returncode, done.stdout) == (3, "done\n")
    assert done.stderr.startswith("complained\n")
    assert "LEAK  connect_once (program.py:4) opened 40" in done.stderr
    assert "failed with: 40 × ECONNREFUSED" in done.stderr
    frames = [line.split()[0] for line in done.stderr.splitlines() if "program.py:" in line and "×" not in line]
    assert frames[-3:] == ["connect_once", "login", "<module>"]
    assert list(own_folder.iterdir()) == []


def test_a_leak_fails_the_run_where_it_is_asked_for(cli: Cli, tmp_path: Path) -> None:
    path = program(tmp_path, LEAKING)
    assert cli("run", "--fail-on-leak=9", "--", sys.executable, path).returncode == 9
    assert cli("run", "--fail-on-leak", "--", sys.executable, path).returncode == 1


def test_a_tidy_command_has_no_finding(cli: Cli, tmp_path: Path) -> None:
    path = program(tmp_path, TIDY)
    done = cli("run", "--fail-on-leak=9", "--", sys.executable, path)
    assert done.returncode == 0
    assert done.stderr.startswith("STEADY  ")
    assert "leak:" not in done.stderr
    quiet = cli("run", "--quiet", "--", sys.executable, path)
    assert (quiet.returncode, quiet.stderr) == (0, "")


def test_what_an_interpreter_closes_as_it_ends_was_left_open(cli: Cli, tmp_path: Path) -> None:
    """However short the program: no look from outside is needed."""
    source = """
import atexit, socket, time
kept, tidy = [], []
for _ in range(20):
    kept.append(socket.socket())
    tidy.append(socket.socket())
    time.sleep(0.01)
atexit.register(lambda: [each.close() for each in tidy])
"""
    done = cli("run", "--", sys.executable, program(tmp_path, source))
    assert done.returncode == 0
    assert "LEAK  <module> (program.py:5) opened 20" in done.stderr
    assert "program.py:6" not in done.stderr


def test_what_a_program_closes_at_its_end_was_not(cli: Cli, tmp_path: Path) -> None:
    source = "import socket\nkept = [socket.socket() for _ in range(20)]\nfor each in kept:\n    each.close()\n"
    done = cli("run", "--", sys.executable, program(tmp_path, source))
    assert done.stderr.startswith("STEADY  ")


def test_json_goes_to_a_file_and_is_the_object_of_the_interface(cli: Cli, tmp_path: Path) -> None:
    output = tmp_path / "report.json"
    done = cli("run", "--json", "--output", str(output), "--", sys.executable, program(tmp_path, LEAKING))
    assert (done.stdout, done.stderr) == ("done\n", "complained\n")
    report = json.loads(output.read_text())
    assert (report["schema"], report["verdict"]) == (1, "leak")
    finding = report["findings"][0]
    assert (finding["id"], finding["severity"], finding["count"]) == ("recorded.growing", "leak", 40)
    headline = finding["origins"][0]["frames"][finding["origins"][0]["headline"]]
    assert (headline["function"], headline["line"], headline["language"]) == ("connect_once", 4, "python")
    assert report["recording"]["alive"][0]["errors"] == {"ECONNREFUSED": 40}


def test_the_environment_of_the_command_is_as_without_leakline(cli: Cli, tmp_path: Path) -> None:
    def variables(text: str) -> list[str]:
        return sorted(line for line in text.splitlines() if not line.startswith("_="))

    plain = subprocess.run(["env"], capture_output=True, text=True, check=True, env={**os.environ}).stdout
    recorded = cli("run", "--quiet", "--", "env").stdout
    assert variables(recorded) == variables(plain)


def test_a_program_finds_what_the_kernel_left_behind_its_environment(cli: Cli, tmp_path: Path) -> None:
    """As Go does with cgo: it goes on the stack from the arguments to the first NULL of the environment, and behind."""
    source, path = tmp_path / "stack.c", tmp_path / "stack"
    source.write_text("""
        #include <elf.h>
        #include <stdio.h>
        #include <sys/auxv.h>
        int main(int count, char **arguments) {
            char **next = arguments + count + 1;
            while (*next) next++;
            unsigned long page = 0;
            for (Elf64_auxv_t *each = (Elf64_auxv_t *)(next + 1); each->a_type != AT_NULL; each++)
                if (each->a_type == AT_PAGESZ) page = each->a_un.a_val;
            printf("%d\\n", page == getauxval(AT_PAGESZ));
        }
    """)
    subprocess.run(["cc", "-o", path, source], check=True)
    done = cli("run", "--quiet", "--", str(path))
    assert (done.returncode, done.stdout) == (0, "1\n")


@pytest.mark.skipif(not shutil.which("musl-gcc"), reason="needs musl-gcc (Debian: musl-tools)")
def test_a_program_on_musl_is_recorded_with_its_children_and_lines(cli: Cli, tmp_path: Path, own_folder: Path) -> None:
    source, path = tmp_path / "on_musl.c", tmp_path / "on_musl"
    source.write_text("""
        #include <stdio.h>
        #include <stdlib.h>
        #include <sys/socket.h>
        #include <sys/wait.h>
        #include <unistd.h>
        static int grab(void) { return socket(AF_INET, SOCK_STREAM, 0); }
        static void in_child(void) { for (int i = 0; i < 30; i++) { dup(0); usleep(15000); } _exit(0); }
        int main(void) {
            if (fork() == 0) in_child();
            wait(NULL);
            int said = system("env | grep -c -i leakline_; echo said");
            for (int i = 0; i < 40; i++) { grab(); fclose(fopen("/dev/null", "r")); usleep(15000); }
            return said == 0 ? 4 : 5;
        }
    """)
    options = ["-g", "-O1", "-fno-inline", "-Wl,--eh-frame-hdr"]  # as musl's own distributions have it
    subprocess.run(["musl-gcc", *options, "-o", path, source], check=True)
    plain = subprocess.run([path], capture_output=True, text=True)
    done = cli("run", "--follow-children", "--output", str(tmp_path / "report"), "--", str(path))
    assert (done.returncode, done.stdout, done.stderr) == (plain.returncode, plain.stdout, plain.stderr)
    report = (tmp_path / "report").read_text()
    assert report.startswith("LEAK  grab (on_musl.c:7) opened 40 tcp descriptors and closed 0")
    assert re.search(r"\n +grab  \S+on_musl\.c:7\n +main  \S+on_musl\.c:13\n", report)  # a long path is shortened
    reports = [cli("report", str(file)).stdout for file in own_folder.iterdir()]
    assert sum("in_child (on_musl.c:8) opened 30" in report for report in reports) == 1


def test_a_command_that_is_killed_leaves_a_recording_that_can_be_reported(
    cli: Cli, tmp_path: Path, own_folder: Path
) -> None:
    source = LEAKING.replace("sys.exit(3)", "os.kill(os.getpid(), 9)")
    done = cli("run", "--", sys.executable, program(tmp_path, source))
    assert done.returncode == 128 + signal.SIGKILL
    (file,) = own_folder.iterdir()
    listed = cli("report")
    assert str(file) in listed.stdout
    assert "ended  " in listed.stdout
    told = cli("report", str(file))
    assert told.returncode == 1
    assert "connect_once (program.py:4) opened 40" in told.stdout


def test_the_first_refused_descriptor_is_reported_while_the_command_runs(tmp_path: Path) -> None:
    words = [*LEAKLINE, "run", "--", sys.executable, program(tmp_path, FULL)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        assert running.stdout.readline() == "refused\n"
        seen = ""
        while "grab (program.py:5)" not in seen:
            line = running.stderr.readline()
            assert line, seen
            seen += line
        assert "a descriptor was refused for the first time" in seen
        assert "EMFILE was met" in seen
        running.terminate()  # it is passed on to the command
        running.communicate(timeout=60)
        assert running.returncode == 128 + signal.SIGTERM


def test_other_commands_see_the_recording_while_it_runs(cli: Cli, tmp_path: Path) -> None:
    source = LEAKING.replace("sys.exit(3)", "print(os.getpid(), flush=True); sys.stdin.read()")
    words = [*LEAKLINE, "run", "--quiet", "--", sys.executable, program(tmp_path, source)]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "done\n"
        pid = running.stdout.readline().strip()
        report = json.loads(cli(pid, "--for", "500ms", "--json").stdout)
        listed = cli("ls", pid, "--kind", "tcp").stdout
        lines = json.loads(cli("ls", pid, "--json").stdout)["opened_by"].values()
        running.communicate("", timeout=60)
    (alive,) = report["recording"]["alive"]
    assert (alive["kind"], alive["origin"]["count"], alive["origin"]["closed"]) == ("tcp", 40, 0)
    assert listed.count("connect_once (program.py:4)") == 40
    assert [line["function"] for line in lines].count("connect_once") == 40


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["run"], 2, "no command was given"),
        (["run", "--json", "--", "true"], 2, "add --output FILE"),
        (["run", "--", "no-such-command"], 127, "there is no such command"),
        (["run", "--", "/etc/passwd"], 126, "Permission denied"),
        (["run", "--recording", "/no/such/folder/x", "--", "true"], 2, "/no/such/folder is no folder"),
        (["report", "/no/such/file"], 2, "No such file or directory"),
        (["report", "/etc/passwd"], 3, "is not a recording of leakline"),
        (["run", "--", ""], 2, "no command was given"),
        (["run", "--fail-on-leak", "7", "--", "true"], 2, "write --fail-on-leak=7"),
        (["run", "--output", "/no/such/file", "--", "true"], 2, "/no/such is no folder"),
    ],
)
def test_mistakes_are_told_in_two_lines(cli: Cli, words: list[str], status: int, said: str) -> None:
    done = cli(*words)
    assert (done.returncode, done.stdout) == (status, "")
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 2


def test_a_report_is_written_to_a_device_or_a_stream_and_takes_the_place_of_a_file_only(
    cli: Cli, tmp_path: Path
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    assert cli("run", "--output", str(pipe), "--", "true").returncode == 0
    assert os.read(reader, 6) == b"STEADY"
    os.close(reader)
    assert pipe.is_fifo()
    told = cli("run", "--output", "/dev/stdout", "--", "echo", "said")
    assert told.stdout.startswith("said\nSTEADY")
    link, file = tmp_path / "link", tmp_path / "file"
    link.symlink_to(file)
    assert cli("run", "--output", str(link), "--", "true").returncode == 0
    assert link.is_symlink()
    assert file.read_text().startswith("STEADY")
    nowhere = cli("run", "--output", "", "--", "true")
    assert (nowhere.returncode, nowhere.stderr.splitlines()[0]) == (2, "leakline: . is a folder")
    (tmp_path / "gone").mkdir()
    vanished = cli("run", "--output", str(tmp_path / "gone/report"), "--", "rmdir", str(tmp_path / "gone"))
    assert vanished.returncode == 0
    assert "could not be written: No such file or directory; the report:\nSTEADY" in vanished.stderr


def test_nothing_recorded_is_no_good_news(cli: Cli, tmp_path: Path) -> None:
    source, static = tmp_path / "leaks.c", tmp_path / "leaks"
    source.write_text(
        '#include <fcntl.h>\nint main(void) { for (int i = 0; i < 30; i++) open("/dev/null", 0); return 0; }'
    )
    subprocess.run(["gcc", "-static", "-o", static, source], check=True)
    done = cli("run", "--fail-on-leak", "--", str(static))
    assert done.returncode == 3
    assert f"leakline: nothing was recorded of {static}: it is statically linked" in done.stderr
    assert cli("run", "--", str(static)).returncode == 0


def test_a_report_that_must_go_to_stderr_needs_no_stdout(tmp_path: Path) -> None:
    line = f'"{sys.executable}" -m leakline run -- sh -c "echo said" >&-'
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True)
    assert "STEADY" in done.stderr


def test_a_script_without_an_interpreter_line_is_run_as_a_shell_runs_it(cli: Cli, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("echo $1\nexit 4\n")
    script.chmod(0o755)
    done = cli("run", "--", str(script), "word")
    assert (done.returncode, done.stdout) == (4, "word\n")


def test_a_command_that_may_write_small_files_only_is_not_ended_by_its_recording(cli: Cli) -> None:
    done = cli("run", "--", "sh", "-c", "ulimit -f 1; exec echo said")
    assert (done.returncode, done.stdout) == (0, "said\n")


def test_a_pipe_that_nobody_writes_is_not_waited_for(cli: Cli, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    done = cli("report", str(tmp_path / "pipe"))
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 2)
    assert "Illegal seek" in done.stderr


def test_an_interrupt_is_the_commands_own_affair(tmp_path: Path) -> None:
    source = "import time\ntry:\n print('ready', flush=True)\n time.sleep(60)\nexcept KeyboardInterrupt:\n exit(5)\n"
    words = [*LEAKLINE, "run", "--", sys.executable, program(tmp_path, source)]
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "ready\n"
        os.killpg(running.pid, signal.SIGINT)  # as a terminal does
        _, told = running.communicate(timeout=60)
    assert running.returncode == 5
    assert told.startswith("STEADY")


FAMILY = """
import os, subprocess, sys, time
def keep(count):
    return [(os.dup(1), time.sleep(0.03)) for _ in range(count)]
if sys.argv[1:] == ["grandchild"]:
    keep(30)
    os._exit(0)
if os.fork() == 0:
    keep(20)
    subprocess.run([sys.executable, __file__, "grandchild"], check=True)
    os._exit(0)
os.wait()
keep(10)
"""


@pytest.mark.parametrize("name", ["100% of it", "x.leakline"])
def test_children_are_recorded_beside_a_recording_of_a_given_name(cli: Cli, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "kept"
    folder.mkdir()
    path = folder / name
    words = ("run", "--quiet", "--follow-children", "--recording", str(path), "--")
    assert cli(*words, sys.executable, program(tmp_path, FAMILY)).returncode == 0
    first, *others = sorted(folder.iterdir())
    assert first == path
    assert "keep (program.py:4) opened 10" in cli("report", str(first)).stdout.replace("<listcomp>", "keep")
    told = [cli("report", str(other)).stdout.replace("<listcomp>", "keep") for other in others]
    for count in (20, 30):  # the child after its fork, the grandchild after its exec
        assert [f"keep (program.py:4) opened {count}" in text for text in told].count(True) == 1
    for other in others:
        assert re.fullmatch(re.escape(name) + r"\.\d+-\d+", other.name)


def test_a_recording_of_any_name_is_found_while_its_process_runs(cli: Cli, tmp_path: Path) -> None:
    source = LEAKING.replace("sys.exit(3)", "print(os.getpid(), flush=True); sys.stdin.read()")
    words = [*LEAKLINE, "run", "--quiet", "--recording", str(tmp_path / "any name"), "--"]
    with subprocess.Popen(
        [*words, sys.executable, program(tmp_path, source)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "done\n"
        pid = running.stdout.readline().strip()
        listed = cli("ls", pid, "--kind", "tcp").stdout
        running.communicate("", timeout=60)
    assert listed.count("connect_once (program.py:4)") == 40


NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to somebody else")


@pytest.mark.parametrize(
    ("way", "said"),
    [("static", "statically linked"), pytest.param("set-uid", "rights of its file's owner", marks=NEEDS_ROOT)],
)
def test_of_a_program_that_cannot_be_recorded_it_says_why(cli: Cli, tmp_path: Path, way: str, said: str) -> None:
    source, path = tmp_path / "program.c", tmp_path / "program"
    source.write_text("int main(void) { return 4; }\n")
    subprocess.run(["cc", *(["-static"] if way == "static" else []), "-o", path, source], check=True)
    if way == "set-uid":
        os.chown(path, 65534, 65534)
        path.chmod(0o4755)
    done = cli("run", "--quiet", "--", str(path))
    assert done.returncode == 4
    assert said in done.stderr
