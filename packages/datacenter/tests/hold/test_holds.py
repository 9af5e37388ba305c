"""A short sample of each hold check; `make hold-…` plays them in full length."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.alone

PROGRAMS = Path(__file__).parent


def play(*words: str, deadline_s: float = 110) -> None:
    done = subprocess.run(
        [sys.executable, *words],
        cwd=PROGRAMS,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=deadline_s,
    )
    assert done.returncode == 0, done.stdout[-8000:]
    assert done.stdout.endswith("\nholds\n")


def test_outages_leak_nothing_and_block_nothing() -> None:
    play("outages.py", "--service", "6", "--broker", "2", "--pause", "0.3")


def test_an_instance_that_is_stopped_leaves_and_comes_back() -> None:
    play("vanish.py", "stopped", "--rounds", "1")


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="making network namespaces needs root")
def test_an_instance_whose_network_is_cut_leaves_and_comes_back() -> None:
    play("vanish.py", "cut", "--rounds", "1")


@pytest.mark.timeout(320)
def test_processes_end_in_order_at_any_moment_whoever_holds_what() -> None:
    play("exits.py", "--runs", "44", deadline_s=300)  # each holder once, and a few


def test_a_broker_at_the_descriptor_limit_sheds_and_recovers() -> None:
    play("limit.py", "--only", "broker", "--peers", "1500", "--seconds", "4")


def test_kills_at_any_moment_end_each_call_once() -> None:
    play("kills.py", "--kills", "6")


def test_a_rolling_restart_fails_no_call() -> None:
    play("rolling.py", "--rounds", "1", "--in-flight", "30")


def test_a_family_goes_on_whoever_of_it_is_killed() -> None:
    play("prefork_kills.py", "--kills", "1", "--route", "direct")


def test_forks_in_every_way_leave_nothing_and_take_nothing() -> None:
    play("forks.py", "--forks", "32", "--wait", "1")


def test_random_frames_leak_nothing_and_kill_nothing() -> None:
    play("fuzz.py", "--frames", "3000", "--peers", "50", "--unread", "3000", "--calm", "1")


def test_the_history_of_brokers_over_zookeeper_is_sound_when_an_instance_is_stopped() -> None:
    play("zookeeper_faults.py", "--servers", "1", "--rounds", "1", "--only", "instance")


def test_a_backend_that_comes_and_goes_costs_its_own_requests() -> None:
    play("gateway.py", "--seconds", "2", "--kills", "0", "--balance", "redis-keys")
