"""The same process seen by leakline, by lsof and by /proc: a sample of what `make hold-lsof` measures."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from leakline import proc

pytestmark = pytest.mark.alone

ROOT = Path(__file__).parents[4]
DESCRIPTORS = 2_000


def test_two_thousand_descriptors_as_lsof_sees_them() -> None:
    command = [sys.executable, "-m", "bench.lsof", "hold", str(DESCRIPTORS)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as target:
        assert target.stdout is not None
        pid = int(target.stdout.readline())
        snapshot = proc.snapshot(pid)
        fields = subprocess.run(["lsof", "-nP", "-F", "ft", "-p", str(pid)], capture_output=True, text=True, check=True)
        links = {int(name): os.readlink(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd")}
    assert {descriptor.number: descriptor.target for descriptor in snapshot.descriptors} == links
    assert len(links) == DESCRIPTORS
    lines = fields.stdout.split("\n")
    theirs = {int(f[1:]): t[1:] for f, t in itertools.pairwise(lines) if f[:1] == "f" and f[1:].isdigit()}
    assert theirs.keys() == links.keys()
    unbound = {d.number for d in snapshot.descriptors if d.socket and d.socket.role == "never-bound"}
    for kind, type_ in (("unix", "unix"), ("pipe", "FIFO")):
        assert {d.number for d in snapshot.descriptors if d.kind == kind} == {
            n for n, t in theirs.items() if t == type_
        }
    inet = {d.number for d in snapshot.descriptors if d.kind in ("tcp", "udp")}
    assert inet - unbound == {number for number, type_ in theirs.items() if type_ == "IPv4"}
    assert unbound == {number for number, type_ in theirs.items() if type_ == "sock"}  # lsof: can't identify protocol
    roles = Counter(d.socket.role for d in snapshot.descriptors if d.socket and d.kind == "tcp")
    assert roles["accepted"] == roles["outgoing"] == roles["never-bound"]
    assert roles["listener"] == 1
