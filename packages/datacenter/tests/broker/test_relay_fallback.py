"""Where the library in C is missing: the loop in Python takes its place, and who insists on C gets a typed error.

The package is copied without its library and used from there, by a process of its own.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import datacenter

PROGRAM = """
import json, sys, zmq
sys.path.insert(0, sys.argv[1])
from relay_peers import call_frame, echo_service, expect_replies
import datacenter
from datacenter.broker import relay_loop
from datacenter.broker.relay import Relay, RelayOptions
from datacenter.errors import DatacenterError
from datacenter.sockets import SocketContext

told = {"package": datacenter.__file__, "library": relay_loop.LIBRARY.exists()}
with SocketContext("relay") as context, SocketContext("peers") as peers, echo_service(peers) as service:
    for native in (None, False, True):
        try:
            with Relay("echo", context, options=RelayOptions(native=native)) as relay:
                with peers.socket(zmq.DEALER, owner="client") as client:
                    relay.set_instances([service.endpoint])
                    client.connect(relay.endpoint)
                    for number in range(100):
                        client.raw.send(call_frame(number, b"x"))
                    expect_replies(client, set(range(100)), lambda _: b"x")
                told[str(native)] = relay.statistics().native
        except DatacenterError as error:
            told[str(native)] = [type(error).__name__, error.message, error.hint]
    told["left"] = context.statistics().sockets
print(json.dumps(told))
"""


def run_from(source: Path) -> dict[str, object]:
    environment = {**os.environ, "PYTHONPATH": str(source)}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM, str(Path(__file__).parent)],
        capture_output=True, text=True, timeout=60, check=False, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told: dict[str, object] = json.loads(done.stdout)
    assert str(told["package"]).startswith(str(source)), "the copy is what was used"
    return told


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    package = Path(datacenter.__file__).parent
    shutil.copytree(package, tmp_path / package.name, ignore=shutil.ignore_patterns("__pycache__", "build"))
    return tmp_path


def test_with_the_library(copy: Path) -> None:
    told = run_from(copy)
    assert (told["library"], told["None"], told["False"], told["True"]) == (True, True, False, True)


@pytest.mark.parametrize("how", ["missing", "broken", "of other sources"])
def test_without_the_library(copy: Path, how: str) -> None:
    library = copy / "datacenter" / "broker" / "native" / "librelay.so"
    library.unlink()
    if how == "broken":
        library.write_bytes(b"\x7fELF and nothing more")
    elif how == "of other sources":
        subprocess.run(["cc", "-shared", "-o", str(library), "-x", "c", os.devnull], check=True)
    told = run_from(copy)
    assert (told["None"], told["False"]) == (False, False)
    kind, message, hint = told["True"]  # type: ignore[misc]
    assert kind == "DatacenterError"
    assert "librelay.so" in message
    assert "make native" in hint
    assert told["left"] == 0, "the relay that could not be made has left no socket"
