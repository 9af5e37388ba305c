"""`leakline attach` as a user types it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

from packages.leakline.tests.conftest import Cli, Targets


def test_the_line_that_leaks_is_named_and_the_process_goes_on(targets: Targets, cli: Cli, tmp_path: Path) -> None:
    process = targets.start("leak", "eventfd", "50")
    file = tmp_path / "report.json"
    ended = cli("attach", str(process.pid), "--for", "2s", "--json", "--output", str(file))
    assert "one thread stood still for" in ended.stderr
    report = json.loads(file.read_text())
    frames = [frame for each in report["recording"]["alive"] for frame in each["origin"]["frames"]]
    assert "forever" in {frame["function"] for frame in frames}
    assert process.poll() is None
    again = cli("attach", str(process.pid), "--for", "300ms")
    assert again.returncode in (0, 1), again.stderr
    assert "targets.py" in again.stdout


def test_it_ends_beyond_the_threshold(targets: Targets, cli: Cli) -> None:
    process = targets.start("leak", "file", "100")
    ended = cli("attach", str(process.pid), "--for", "50s", "--threshold", "20")
    assert "more than 20" in ended.stdout


def test_it_ends_in_order_when_it_is_told_to(targets: Targets) -> None:
    """As `timeout` and a terminal that closes end it: the target is left as it was, and what was seen is reported."""
    process = targets.start("leak", "file", "100")
    command = [sys.executable, "-m", "leakline", "attach", str(process.pid), "--for", "60s"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as attached:
        assert attached.stderr is not None
        assert "one thread stood still for" in attached.stderr.readline()
        attached.send_signal(signal.SIGTERM)
        said, _ = attached.communicate(timeout=60)
    assert attached.returncode in (0, 1)
    assert "interrupted" in said
    maps = Path(f"/proc/{process.pid}/maps").read_text()
    assert ".leakline" not in maps
    assert process.poll() is None


def test_it_says_why_it_cannot(cli: Cli) -> None:
    ended = cli("attach", "999999999")
    assert ended.returncode == 3
    assert "no process" in ended.stderr
