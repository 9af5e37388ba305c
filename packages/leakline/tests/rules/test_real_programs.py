"""Rules about what only real processes have: relatives, pipes to the dead, stuck threads, a spinning accept(). All
programs are observed at the same time, until each has shown what it does.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from leakline.facts import Finding
from leakline.observe import Observation

pytestmark = pytest.mark.alone  # it watches fourteen programs at a pace, as test_observe does

PROGRAMS = Path(__file__).with_name("programs.py")
EXPECTED = {
    "accepted_not_closed": {"tcp.accepted-piling-up"},
    "outgoing_not_closed": {"tcp.outgoing-piling-up"},
    "listeners_not_closed": {"socket.listeners-piling-up"},
    "connection_shared_with_a_child": {"fork.shared", "fork.port-kept"},
    "pipes_of_dead_children": {"pipe.dead-peer"},
    "pidfds_of_dead_children": {"pidfd.dead-child"},
    "deleted_logs": {"file.deleted"},
    "stuck_on_a_lock": {"threads.stuck"},
    "spins_at_the_limit": {"limit.accept-spin", "limit.exhausted"},
    "zmq_monitor_unread": {"zmq.monitor-unread"},
    "zmq_socket_per_request": {"zmq.socket-per-request"},
    "zmq_idle_pair": set(),
    "workers_that_accept": set(),
    "idle_pools": set(),
}
# These are true of a program that does these things for seconds, and not what is looked for here.
NOTES = ("tcp.time-wait", "growth.undecided", "observe.unreadable")
LEAST_S, MOST_S = 4.0, 60.0
Found = dict[str, dict[str, Finding]]


@pytest.fixture(scope="module")
def found() -> Iterator[Found]:
    command = [sys.executable, str(PROGRAMS)]
    pipe = subprocess.PIPE
    processes = {
        name: subprocess.Popen([*command, name], stdin=pipe, stdout=pipe, text=True, start_new_session=True)
        for name in EXPECTED
    }
    try:
        for process in processes.values():
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        yield _observed(processes)
    finally:
        for process in processes.values():
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # with its children
            process.communicate()


def _observed(processes: dict[str, subprocess.Popen[str]]) -> Found:
    """Watch all until each has shown what it does; who has is ended, so that the others have the machine."""
    observations = {name: Observation(process.pid) for name, process in processes.items()}
    began = time.monotonic()
    seen: Found = {}
    looked = LEAST_S
    while observations and time.monotonic() - began < MOST_S:
        for observation in observations.values():
            observation.step()
        time.sleep(0.03)  # the pace of sampling
        if time.monotonic() - began < looked:
            continue
        for name, observation in tuple(observations.items()):
            findings = {finding.id: finding for finding in observation.report().findings if finding.id not in NOTES}
            if EXPECTED[name] <= findings.keys():
                seen[name] = findings
                del observations[name]
                processes[name].communicate()
        looked = time.monotonic() - began + 1.0
    return seen


@pytest.mark.parametrize("name", EXPECTED)
def test_each_program_has_its_findings_and_no_other(found: Found, name: str) -> None:
    assert found[name].keys() == EXPECTED[name]


def test_findings_say_where_they_look(found: Found) -> None:
    shared = found["connection_shared_with_a_child"]["fork.shared"]
    assert shared.confidence == "certain"
    assert "child " in str(shared.evidence["holder"])
    stuck = found["stuck_on_a_lock"]["threads.stuck"]
    assert "worker_that_needs_it (programs.py:" in str(stuck.evidence["wanted by"])
    accepted = found["accepted_not_closed"]["tcp.accepted-piling-up"]
    assert "127.0.0.1:" in accepted.title
    assert accepted.ruled_out["outgoing"] == {"held": 0, "opened meanwhile": 0}


def test_all_that_was_not_found_has_been_waited_for(found: Found) -> None:
    assert found.keys() == EXPECTED.keys()
