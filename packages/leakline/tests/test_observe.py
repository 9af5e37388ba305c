"""The whole way from a real process to its report. All targets are watched at the same time, for six seconds."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from datetime import datetime
from typing import Any

import msgspec
import pytest

from leakline import proc
from leakline.errors import NoSuchProcessError, UsageError
from leakline.observe import Observation, Report, observe
from leakline.reports import terminal
from leakline.reports.style import Style

pytestmark = pytest.mark.alone

SECONDS = 6.0
KINDS = (
    "file",
    "directory",
    "tcp",
    "udp",
    "unix",
    "pipe",
    "eventfd",
    "epoll",
    "memfd",
    "pidfd",
    "timerfd",
    "inotify",
    "pty",
)
DYING = "leak_until_limit 70"
HEALTHY = ("churn_files", "churn_cycles", "churn_asyncio", "zmq_idle", "zmq_client drained")
SICK = (
    "zmq_client undrained",
    "zmq_reaper",
    "zmq_full",
    "close_wait 12",
    "never_bound 12",
    "near_limit 64",
    DYING,
)
RATES = {"pipe": 40.0, "pty": 40.0, "inotify": 6.0}  # pipe and pty come in pairs; a user has 128 inotify instances
PROGRAMS = [*(f"leak {kind}" for kind in KINDS if kind != "inotify"), "leak inotify 6", *HEALTHY, *SICK]


class Frame(msgspec.Struct, forbid_unknown_fields=True):
    function: str
    file: str
    line: int
    language: str
    module: str


class Origin(msgspec.Struct, forbid_unknown_fields=True):
    count: int
    frames: list[Frame]
    headline: int
    stacks: int
    opened: int | None
    closed: int | None
    oldest_s: float | None
    newest_s: float | None
    per_second: float | None


class Finding(msgspec.Struct, forbid_unknown_fields=True):
    id: str
    severity: str
    title: str
    count: int
    per_second: float
    evidence: dict[str, object]
    cause: str
    remedy: str
    origins: list[Origin]
    harmless: str
    next: str
    threshold: str
    confidence: str
    ruled_out: dict[str, object]


class Interface(msgspec.Struct, forbid_unknown_fields=True):
    schema: int
    pid: int
    command: str
    seconds: float
    verdict: str
    limit: int | None
    total: int
    highest: int | None
    counts: dict[str, int]
    growth: dict[str, float]
    seconds_to_limit: float | None
    findings: list[Finding]


class Seen:
    """Reports of all targets, and what the targets printed meanwhile."""

    def __init__(self, shared_targets: Any) -> None:
        processes = {name: shared_targets.launch(*name.split()) for name in PROGRAMS if name != DYING}
        for process in processes.values():
            shared_targets.wait(process)
        # The undrained monitor's pipe must be full before the observation begins, so that the rate has one value.
        self.blocked_from = _wait_until_blocked(processes["zmq_client undrained"].pid)
        observations = {name: Observation(process.pid) for name, process in processes.items()}
        # Started last: it dies of its leak three seconds later, which is to be seen, and not to happen before.
        observations[DYING] = Observation(shared_targets.start(*DYING.split()).pid)
        self.began = time.monotonic()
        while time.monotonic() - self.began < SECONDS:
            for observation in observations.values():
                observation.step()
            time.sleep(0.02)  # the pace of sampling
        self.ended = time.monotonic()
        self.reports = {name: observation.report() for name, observation in observations.items()}
        client = processes["zmq_client undrained"]
        client.kill()
        self.printed = client.communicate()[0]


def _wait_until_blocked(pid: int) -> float:
    observation, end = Observation(pid), time.monotonic() + 30
    while not any(thread.seconds > 0.5 for thread in observation.threads()):
        assert time.monotonic() < end, "the I/O thread was not blocked in 30 s"
        observation.step()
        time.sleep(0.05)  # the pace of sampling
    return time.monotonic()


@pytest.fixture(scope="module")
def seen(shared_targets: Any) -> Seen:
    return Seen(shared_targets)


@pytest.mark.parametrize("kind", KINDS)
def test_a_leak_of_each_kind_is_found_with_its_rate(seen: Seen, kind: str) -> None:
    report = seen.reports["leak inotify 6" if kind == "inotify" else f"leak {kind}"]
    rate = RATES.get(kind, 20.0)
    assert report.verdict == "leak"
    assert list(report.growth) == [kind]
    assert report.growth[kind] == pytest.approx(rate, rel=0.2)
    (finding,) = [each for each in report.findings if each.severity == "leak"]
    # These sockets are never bound: the finding that says so tells their growth too.
    assert finding.id == ("socket.never-bound" if kind in ("tcp", "udp", "unix") else f"growth.{kind}")
    assert finding.per_second == pytest.approx(rate, rel=0.2)
    assert finding.evidence["seconds_to_limit"] is not None
    assert [each.id for each in report.findings[1:]] == (["socket.not-in-tables"] if kind in ("tcp", "udp") else [])
    assert report.exit_code == 1
    assert report.limit is not None
    assert report.seconds_to_limit == pytest.approx((report.limit - report.total) / rate, rel=0.25)


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_process_has_no_finding(seen: Seen, name: str) -> None:
    report = seen.reports[name]
    # A connection per call leaves hundreds in TIME_WAIT, and the report says that these are no descriptors.
    # The client of ZeroMQ asks with a new socket each time, which is told, too.
    notes = {"churn_asyncio": {"tcp.time-wait"}, "zmq_client drained": {"zmq.socket-per-request"}}.get(name, set())
    assert {finding.id for finding in report.findings} <= notes
    assert report.verdict == "steady"
    assert report.exit_code == 0


def test_an_undrained_monitor_is_named_with_the_rate_of_the_sockets_that_it_leaks(seen: Seen) -> None:
    report = seen.reports["zmq_client undrained"]
    (finding,) = report.findings
    assert finding.id == "zmq.io-thread-blocked"
    assert finding.severity == "leak"
    assert report.verdict == "leak"
    printed = [(float(line.split()[0]), int(line.split()[1])) for line in seen.printed.splitlines()]
    closed = [(at, count) for at, count in printed if seen.began <= at <= seen.ended]
    own_rate = (closed[-1][1] - closed[0][1]) / (closed[-1][0] - closed[0][0])
    assert finding.per_second == pytest.approx(own_rate, rel=0.2)
    assert report.growth["eventfd"] == pytest.approx(own_rate, rel=0.2)
    threads = finding.evidence["threads"]
    assert isinstance(threads, list)
    (thread,) = threads
    assert thread["name"] == "ZMQbg/IO/0"
    assert thread["blocked_seconds"] >= SECONDS - 1.5
    assert finding.evidence["seconds_to_limit"] is not None


def test_a_blocked_reaper_is_told_apart_from_a_blocked_io_thread(seen: Seen) -> None:
    report = seen.reports["zmq_reaper"]
    assert [finding.id for finding in report.findings] == ["zmq.reaper-blocked"]
    assert report.findings[0].severity == "leak"
    assert "MONITOR_STOPPED" in report.findings[0].cause


def test_a_full_context_is_told_apart_from_the_limit_of_descriptors(seen: Seen) -> None:
    report = seen.reports["zmq_full"]
    assert [finding.id for finding in report.findings] == ["zmq.max-sockets"]
    assert report.verdict == "steady"
    assert report.limit is not None
    assert report.total < 0.5 * report.limit


def test_close_wait_sockets_are_counted_by_peer(seen: Seen) -> None:
    (finding,) = seen.reports["close_wait 12"].findings
    assert (finding.id, finding.severity, finding.count) == ("tcp.close-wait", "warning", 12)
    peers = finding.evidence["peers"]
    assert isinstance(peers, dict)
    assert ["CLOSE_WAIT" in peer for peer in peers] == [True]


def test_sockets_that_were_never_bound_are_counted(seen: Seen) -> None:
    finding, note = seen.reports["never_bound 12"].findings
    assert (finding.id, finding.severity, finding.count) == ("socket.never-bound", "warning", 12)
    assert (note.id, note.severity, note.count) == ("socket.not-in-tables", "note", 12)
    assert note.evidence["sockets"] == 12
    assert note.evidence["in_tables"] == 0


def test_near_the_limit_without_growth(seen: Seen) -> None:
    report = seen.reports["near_limit 64"]
    assert report.verdict == "near-limit"
    assert [finding.id for finding in report.findings] == ["limit.near"]
    assert report.exit_code == 1


def test_a_process_that_dies_of_its_leak_is_reported_from_what_was_seen(seen: Seen) -> None:
    report = seen.reports[DYING]
    assert report.ended
    assert [finding.id for finding in report.findings][-1] == "observe.ended"


def test_looking_costs_little(seen: Seen) -> None:
    costs = [report.cpu_seconds / report.seconds for name, report in seen.reports.items() if not report.ended]
    assert max(costs) < 0.1
    assert sum(costs) / len(costs) < 0.04


def test_json_has_exactly_the_fields_of_the_interface(seen: Seen) -> None:
    for report in seen.reports.values():
        decoded = msgspec.json.decode(report.to_json(), type=Interface)
        assert decoded.schema == 1
        assert decoded.pid == report.pid
        if not report.ended:
            assert sum(decoded.counts.values()) == decoded.total


def test_a_report_can_be_had_at_any_moment(targets: Any) -> None:
    observation = Observation(targets.start("leak", "file").pid)
    report = observation.report()
    assert isinstance(report, Report)
    assert report.verdict == "unknown"


def test_an_observation_ends_with_its_process(targets: Any) -> None:
    process = targets.start("churn_files")
    observation = Observation(process.pid)
    process.kill()
    process.wait()
    assert observation.step() is None
    assert observation.ended
    assert observation.report().findings[-1].id == "observe.ended"


def test_what_cannot_be_observed_is_a_typed_error(targets: Any) -> None:
    process = targets.start("zmq_idle")
    with pytest.raises(UsageError):
        observe(process.pid, seconds=0)
    with pytest.raises(UsageError):
        observe(process.pid, 1.0, limit=0)
    process.kill()
    process.wait()
    with pytest.raises(NoSuchProcessError):
        observe(process.pid)


def test_a_stopped_process_is_not_called_steady(targets: Any) -> None:
    process = targets.start("churn_files")
    process.send_signal(signal.SIGSTOP)
    wait_for_state(process.pid, "T")
    report = observe(process.pid, 3.2)
    assert report.verdict == "unknown"
    assert [finding.id for finding in report.findings] == ["observe.stopped"]
    assert f"kill -CONT {process.pid}" in report.findings[0].remedy
    process.send_signal(signal.SIGCONT)


def wait_for_state(pid: int, state: str) -> None:
    end = time.monotonic() + 10
    while {thread.state for thread in proc.threads(pid)} != {state}:
        assert time.monotonic() < end
        time.sleep(0.01)  # the pace of looking


def test_another_process_that_is_given_the_number_is_not_taken_for_the_one_observed(targets: Any) -> None:
    process = targets.start("leak", "file")
    observation = Observation(process.pid)
    assert observation.step() is not None
    observation._process._started -= 1  # as if the one observed had been an earlier process of that number,
    observation._process._inode -= 1  # which had its own inodes in /proc
    before = observation.samples()
    assert observation.step() is None
    assert observation.ended
    assert observation.samples() == before


def test_an_observation_of_hours_keeps_little(targets: Any) -> None:
    observation = Observation(targets.start("zmq_idle").pid, window=86400.0)
    for _ in range(200):
        observation.step()
    assert len(observation.samples()) < 10
    assert observation.samples()[-1].at - observation.samples()[0].at > 0


def test_a_process_that_becomes_another_program_has_its_new_command() -> None:
    script = ["sh", "-c", "echo ready; read line; exec sleep 60"]
    with subprocess.Popen(script, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        observation = Observation(process.pid)
        process.stdin.write("\n")
        process.stdin.flush()
        end = time.monotonic() + 10
        while observation.report().command != "sleep 60":
            assert time.monotonic() < end
            time.sleep(0.01)  # the pace of looking
        assert not observation.ended
        process.kill()


def test_no_advice_to_look_again_at_a_process_that_is_gone(targets: Any) -> None:
    process = targets.start("churn_files")
    observation = Observation(process.pid)
    process.kill()
    process.wait()
    assert observation.step() is None
    shown = terminal.render(observation.report(), Style(), datetime(2026, 3, 1))
    assert shown.startswith("UNKNOWN  the process ended after 0.0 s: too little seen")
    assert f"leakline {process.pid}" not in shown


RECONNECTING = """
import os, time, zmq
context = zmq.Context()
socket = context.socket(zmq.DEALER)
socket.reconnect_ivl = 20
socket.connect("tcp://127.0.0.1:1")
never, now_and_then = os.eventfd(1), [os.eventfd(1) for _ in range(4)]
print(never, *now_and_then, flush=True)
while True:
    for number in now_and_then:  # each has something to read for three quarters of the time
        os.eventfd_read(number)
        time.sleep(0.006)
        os.eventfd_write(number, 1)
"""


def test_what_is_read_now_and_then_is_told_apart_from_what_is_never_read() -> None:
    with subprocess.Popen([sys.executable, "-c", RECONNECTING], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            never, *now_and_then = process.stdout.readline().split()
            report = observe(process.pid, seconds=8.0)
        finally:
            process.kill()
    unread = [finding for finding in report.findings if finding.id == "zmq.monitor-unread"]
    assert len(unread) == 1, report.findings
    told = [each.split(",")[0] for each in unread[0].evidence["eventfds that stay signalled"]]
    assert f"descriptor {never}" in told
    assert not {f"descriptor {number}" for number in now_and_then} & set(told)
