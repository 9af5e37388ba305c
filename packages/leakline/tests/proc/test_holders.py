"""Who holds a thing, asked of real processes: ports, files, folders, UNIX sockets; copies told from the original."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from leakline.errors import UsageError
from leakline.holding import Held, Row, rows
from leakline.proc.asked import PortAsked, asked
from leakline.proc.holders import check, holders
from leakline.proc.same_file import grouped_by_open_file, same_open_file

HOLDING = """
import os, socket, subprocess, sys, time
os.chdir({folder!r})
listener = socket.create_server(("127.0.0.1", 0)); fds["listener"] = listener.fileno()
os.set_inheritable(listener.fileno(), True)
child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE, close_fds=False)
fds["child"], fds["port"] = child.pid, listener.getsockname()[1]
clients = [socket.create_connection(listener.getsockname()) for _ in range(3)]
accepted = [listener.accept()[0] for _ in range(2)]; fds["accepted"] = [each.fileno() for each in accepted]
log = open("log", "w"); log.write("x" * 100_000); log.flush(); fds["log"] = log.fileno()
os.link("log", "second name")
gone = open("gone", "w"); gone.write("x" * 100_000); gone.flush(); os.unlink("gone"); fds["gone"] = gone.fileno()
local = socket.socket(socket.AF_UNIX); local.bind("local"); local.listen(); fds["local"] = local.fileno()
abstract = socket.socket(socket.AF_UNIX); abstract.bind("\\0" + {folder!r}); fds["abstract"] = abstract.fileno()
"""


def look(what: str | Path) -> tuple[Held, tuple[Row, ...]]:
    held = holders(asked(str(what)))
    return held, rows(held)


def numbers(what: str | Path) -> dict[int, tuple[int, ...]]:
    return {row.holder.pid: row.numbers for row in look(what)[1]}


def test_who_holds_what(start: Any, tmp_path: Path) -> None:
    target = start(HOLDING.format(folder=str(tmp_path)))
    pid, fds = target.pid, target.fds
    held, found = look(f":{fds['port']}")
    first, copy, connections = found
    assert (first.holder.pid, first.relation, first.numbers) == (pid, "first", (fds["listener"],))
    assert (copy.holder.pid, copy.relation, copy.of) == (fds["child"], "inherited", pid)
    assert copy.hold.socket == first.hold.socket
    assert (connections.numbers, connections.relation) == (tuple(fds["accepted"]), "own")
    assert [(each.state, each.count) for each in held.unheld] == [("ESTABLISHED", 1)]  # not accepted yet
    assert look(f":{fds['port']}/udp")[1] == ()
    assert numbers(f"localhost:{fds['port']}") == numbers(f":{fds['port']}")
    assert numbers(f"127.0.0.2:{fds['port']}") == {}
    assert numbers(tmp_path / "second name") == numbers(tmp_path / "log") == {pid: (fds["log"],)}
    ((_, gone),) = [(row.holder.pid, row) for row in look(tmp_path / "gone")[1]]
    assert (gone.numbers, gone.hold.deleted) == ((fds["gone"],), True)
    assert gone.bytes_kept >= 100_000
    assert numbers(tmp_path / "local") == {pid: (fds["local"],)}
    assert numbers(f"@{tmp_path}") == {pid: (fds["abstract"],)}
    folder = {(row.hold.how, row.hold.below, row.count) for row in look(tmp_path)[1] if row.holder.pid == pid}
    assert {("cwd", False, 1), ("descriptor", True, 1)} <= folder
    on_file_system = {row.holder.pid for row in look(mount_of(tmp_path))[1]}
    assert {pid, fds["child"]} <= on_file_system
    assert pid in {row.holder.pid for row in look(os.path.realpath(sys.executable))[1] if row.hold.how == "program"}


def mount_of(path: Path) -> Path:
    while not os.path.ismount(path):
        path = path.parent
    return path


def test_mapped_libraries_are_held(start: Any) -> None:
    target = start("import ctypes; ctypes.CDLL(None)")
    library = next(
        line.split(None, 5)[5].strip()
        for line in Path(f"/proc/{target.pid}/maps").read_text().splitlines()
        if "/libc.so" in line or "/libc-" in line
    )
    assert "mapped" in {row.hold.how for row in look(library)[1] if row.holder.pid == target.pid}


def test_the_same_open_file_by_kcmp(start: Any, tmp_path: Path) -> None:
    target = start(
        f"""
        import os
        one = os.open({str(tmp_path)!r}, os.O_RDONLY); other = os.open({str(tmp_path)!r}, os.O_RDONLY)
        fds.update(one=one, copy=os.dup(one), other=other)
        """
    )
    one, copy, other = ((target.pid, target.fds[name]) for name in ("one", "copy", "other"))
    assert same_open_file(one, copy) is True
    assert same_open_file(one, other) is False
    assert same_open_file(one, (target.pid, 999)) is None
    groups = grouped_by_open_file([one, other, copy])
    assert groups is not None
    assert sorted(map(sorted, groups)) == sorted(map(sorted, [[one, copy], [other]]))


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("ip"), reason="needs root and iproute2")
def test_a_port_in_another_network_namespace(start: Any) -> None:
    name = f"leakline-holders-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
        target = start(
            "import socket; server = socket.create_server(('127.0.0.1', 7003)); fds['server'] = server.fileno()",
            prefix=("ip", "netns", "exec", name),
        )
        (row,) = [row for row in look(":7003")[1] if row.holder.pid == target.pid]
        assert row.numbers == (target.fds["server"],)
        assert row.hold.namespace == os.stat(f"/proc/{target.pid}/ns/net").st_ino
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)


@pytest.mark.parametrize("typed", ["", ":0", ":99999", "host.example:80", "a\0b"])
def test_what_means_nothing_is_refused(typed: str) -> None:
    with pytest.raises(UsageError):
        asked(typed)


def test_a_path_that_exists_is_a_path_whatever_it_looks_like(tmp_path: Path) -> None:
    path = tmp_path / "file:80"
    path.touch()
    assert not isinstance(asked(str(path)), PortAsked)
    assert isinstance(asked("[::1]:80"), PortAsked)


def test_nobody_holds_a_free_port_and_a_path_that_never_was_is_an_error(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    free = asked(f":{port}")
    check(free, holders(free))
    gone = asked(str(tmp_path / "never"))
    with pytest.raises(Exception, match="never") as raised:
        check(gone, holders(gone))
    assert getattr(raised.value, "exit_code", 0) in (2, 3)  # 3: somebody could not be read, and may hold one


def test_json_and_the_command_line(start: Any, cli: Any) -> None:
    target = start(
        "import socket; server = socket.create_server(('127.0.0.1', 0)); fds['port'] = server.getsockname()[1]"
    )
    ran = cli("holders", f":{target.fds['port']}", "--json")
    report = json.loads(ran.stdout)
    assert ran.returncode == 0, ran.stderr
    assert report["schema"] == 1
    assert [row["pid"] for row in report["rows"]] == [target.pid]
    assert report["holds"][0]["socket"]["role"] == "listener"
    assert cli("holders", ":99999").returncode == 2


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="needs root, to become somebody else")
def test_a_port_of_another_user_is_said_to_be_hidden(start: Any) -> None:
    target = start(
        "import socket; server = socket.create_server(('127.0.0.1', 0)); fds['port'] = server.getsockname()[1]"
    )
    child = os.fork()
    if child == 0:  # only this can become another user
        code = 1
        try:
            os.setgid(65534)
            os.setuid(65534)
            held = holders(asked(f":{target.fds['port']}"))
            code = 0 if not held.holds and held.denied and held.unheld[0].users == ("root",) else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_names_of_any_bytes(tmp_path: Path) -> None:
    """`leakline holders` as a shell hands the name over, and in JSON, which has no such bytes."""
    with socket.socket(socket.AF_UNIX) as abstract:
        name = os.fsencode(tmp_path) + b"\xff\n"
        abstract.bind(b"\0" + name)
        for typed in (b"@" + name, b"@" + os.fsencode(tmp_path) + rb"\xff\n"):
            done = subprocess.run(
                [sys.executable, "-m", "leakline", "holders", typed, "--json"], capture_output=True, check=False
            )
            assert done.stderr == b""
            told = json.loads(done.stdout)
            assert [hold["pid"] for hold in told["holds"]] == [os.getpid()]


@pytest.mark.parametrize("typed", [":abc", ":-1", ":", "[::1]", ":80/xyz"])
def test_what_is_no_port_is_no_path_either(typed: str) -> None:
    with pytest.raises(UsageError, match="is neither a path that exists nor a port"):
        asked(typed)
