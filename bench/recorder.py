"""What the recorder costs: programs that open and close descriptors, plain and under each tool that tells where they
were opened, interleaved in one run.

    python -m bench.recorder [--rounds N] [--tools plain,leakline,…]

Each program times its own loop, so what a tool needs to start does not count; slow tools are given fewer operations.
The table holds the ratio of the medians, per operation, to the plain run: by the clock and, in brackets, of the
program's own processor time, which other programs on the machine lengthen less. Tools that stop it work outside of it.
Exits 1 if leakline is above a bar by the clock.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from leakline.recorder.target_library import LIBRARY

PROGRAMS = Path(__file__).parent / "recorder_programs"
PATHS = 6**6  # call paths of the generated program
TURNS = 3  # of plain and leakline in a round: their ratio is near to 1, and one run differs from the next by a fifth
SLOW = 50  # a tool that is this much slower gets so many fewer operations
TIMEOUT_S = 300


@dataclass(frozen=True)
class Workload:
    """A program, how often it does what it does, and the highest ratio that leakline may have."""

    name: str
    command: tuple[str, ...]
    operations: int
    bar: float
    python: bool = False

    def words(self, share: int) -> list[str]:
        count = str(max(200, self.operations // share))
        return [word.replace("OPERATIONS", count) for word in self.command]


@dataclass(frozen=True)
class Tool:
    """How a command is run under a tool; `share`: of the operations, one in so many."""

    name: str
    wrap: Callable[[Sequence[str]], list[str]]
    needs: str = ""
    share: int = 1
    python_only: bool = False


def _leakline(command: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "leakline", "run", "--quiet", "--", *command]


def _prefix(*words: str) -> Callable[[Sequence[str]], list[str]]:
    return lambda command: [*words, *command]


def _memray(command: Sequence[str]) -> list[str]:
    return [command[0], "-m", "memray", "run", "--native", "-q", "-f", "-o", os.devnull, *command[1:]]


TRACED = "socket,openat,eventfd2,close"
BPF = (
    "tracepoint:syscalls:sys_exit_socket,tracepoint:syscalls:sys_exit_openat,tracepoint:syscalls:sys_exit_eventfd2"
    " /pid == cpid/ { @open[args->ret, ustack(32)] = 1; }"
    " tracepoint:syscalls:sys_enter_close /pid == cpid/ { @closed = count(); }"
    " END { clear(@open); clear(@closed); }"
)

TOOLS = (
    Tool("plain", list),
    Tool("leakline", _leakline),
    Tool("valgrind --track-fds", _prefix("valgrind", "-q", "--tool=none", "--track-fds=yes"), "valgrind", 10),
    Tool("strace -f", _prefix("strace", "-f", "-o", os.devnull, "-e", f"trace={TRACED}"), "strace", SLOW),
    Tool("strace -f -k", _prefix("strace", "-f", "-k", "-o", os.devnull, "-e", f"trace={TRACED}"), "strace", 10 * SLOW),
    Tool("memray --native", _memray, "memray", 2, python_only=True),
    Tool(
        "bpftrace ustack",
        lambda command: ["bpftrace", "-q", "-o", os.devnull, "-e", BPF, "-c", " ".join(command)],
        "bpftrace",
    ),
)


def generated(folder: Path) -> Path:
    """A C program of PATHS call paths, six functions deep and wide, each with a frame of its own size."""
    lines = [
        "#define _GNU_SOURCE",
        *(f"#include <{name}.h>" for name in ("stdio", "stdlib", "sys/eventfd", "time", "unistd")),
        "static int f6_0(long path) { (void)path; return eventfd(0, 0); }",
    ]
    for level in range(5, -1, -1):
        callees = range(6) if level < 5 else (0,)
        for number in range(6):
            room = 16 * (1 + (7 * level + 5 * number) % 9)
            cases = "".join(
                f" case {each}: result = f{level + 1}_{each}(path / 6); break;" for each in callees if level < 5
            )
            call = f"switch (path % 6) {{{cases} }}" if level < 5 else "result = f6_0(path);"
            lines.append(
                f"static __attribute__((noinline)) int f{level}_{number}(long path) {{ volatile char room[{room}];"
                f" room[0] = 1; int result = -1; {call} return result + room[0] - 1; }}"
            )
    tops = "".join(f" case {number}: number = f0_{number}(i / 6); break;" for number in range(6))
    lines.append(
        "static double now_ns(clockid_t clock) { struct timespec now; clock_gettime(clock, &now);"
        " return (double)now.tv_sec * 1e9 + (double)now.tv_nsec; }\n"
        "int main(int count, char **words) { long operations = count > 1 ? atol(words[1]) : 1;"
        " double began = now_ns(CLOCK_MONOTONIC), processor = now_ns(CLOCK_PROCESS_CPUTIME_ID);"
        " for (long i = 0; i < operations; i++) { int number = -1;"
        f" switch (i % 6) {{{tops} }} if (number < 0 || close(number)) return 1; }}"
        " processor = now_ns(CLOCK_PROCESS_CPUTIME_ID) - processor;"
        " double passed = now_ns(CLOCK_MONOTONIC) - began;"
        ' printf("%.1f %.1f\\n", passed / (double)operations, processor / (double)operations);'
        " return 0; }"
    )
    source = folder / "paths.c"
    source.write_text("\n".join(lines))
    return compiled(source, folder / "paths", "-O1")


def compiled(source: Path, target: Path, *flags: str) -> Path:
    subprocess.run([os.environ.get("CC", "cc"), *(flags or ("-O2",)), "-g", "-o", str(target), str(source)], check=True)
    return target


def workloads(folder: Path) -> tuple[Workload, ...]:
    program = str(compiled(PROGRAMS / "open_close.c", folder / "open_close"))
    python = (sys.executable, str(PROGRAMS / "open_close.py"), "OPERATIONS")
    return (
        Workload("C, with work", (program, "OPERATIONS", "30000"), 20_000, 1.02),
        Workload("C, open/close only", (program, "OPERATIONS", "0"), 300_000, 1.15),
        Workload("Python, open/close only", python, 100_000, 1.15, python=True),
        Workload(f"C, {PATHS} call paths", (str(generated(folder)), "OPERATIONS"), 6 * PATHS, 1.25),
    )


class Cost(NamedTuple):
    """Nanoseconds of one operation."""

    clock: float
    processor: float


def measure(workload: Workload, tool: Tool) -> Cost:
    """As the program itself measured it. Raises RuntimeError naming what the tool said."""
    done = subprocess.run(
        tool.wrap(workload.words(tool.share)),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    for line in done.stdout.splitlines():
        try:
            clock, processor = line.split()
            return Cost(float(clock), float(processor))
        except ValueError:
            continue
    said = done.stderr.strip().splitlines()
    complaint = next((line for line in said if "ERROR: " in line and "RLIMIT" not in line), " ".join(said[-3:]))
    raise RuntimeError(f"{tool.name}: status {done.returncode}: {complaint[-300:]}")


def usable(tool: Tool) -> bool:
    if tool.python_only:
        return subprocess.run([sys.executable, "-c", f"import {tool.needs}"], capture_output=True).returncode == 0
    return not tool.needs or shutil.which(tool.needs) is not None


def install(packages: Sequence[str]) -> None:
    """Debian's, where root allows; what is missing after that is left out of the table, and named."""
    if packages and os.geteuid() == 0 and shutil.which("apt-get"):
        command = ["apt-get", "install", "-qq", "-y", "--no-install-recommends", *packages]
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(command, stdout=subprocess.DEVNULL, env=environment)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tools", default="", help="by name, with commas")
    options = parser.parse_args()
    wanted = [name.strip() for name in options.tools.split(",") if name.strip()]
    tools = [tool for tool in TOOLS if not wanted or tool.name in (*wanted, "plain")]
    install(sorted({tool.needs for tool in tools if not tool.python_only and not usable(tool)}))
    left_out = [tool.name for tool in tools if not usable(tool)]
    tools = [tool for tool in tools if tool.name not in left_out]
    if not LIBRARY.is_file():
        sys.exit("bench.recorder: the recorder is not built: make native")
    compared = [tool for tool in tools if tool.name in ("plain", "leakline")]
    figures: dict[tuple[str, str], list[Cost]] = {}
    troubles: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        loads = workloads(Path(folder))
        for number in range(options.rounds):
            for workload in loads:
                for tool in tools + compared * (TURNS - 1):
                    slow = tool.share >= SLOW and number >= 3  # three rounds tell a factor of fifty well enough
                    if slow or (tool.python_only and not workload.python) or tool.name in troubles:
                        continue
                    try:
                        figures.setdefault((workload.name, tool.name), []).append(measure(workload, tool))
                    except (RuntimeError, subprocess.TimeoutExpired) as error:
                        troubles[tool.name] = str(error)
            print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
    sys.exit(show(loads, tools, figures, troubles, left_out))


def _median(costs: Sequence[Cost]) -> Cost:
    return Cost(*(statistics.median(values) for values in zip(*costs, strict=True)))


def show(
    loads: Sequence[Workload],
    tools: Sequence[Tool],
    figures: dict[tuple[str, str], list[Cost]],
    troubles: dict[str, str],
    left_out: Sequence[str],
) -> int:
    """Prints the table; 1 if leakline is above a bar."""
    names = [tool.name for tool in tools]
    print(f"{'ratio to plain, medians':26}" + "".join(f"{name:>22}" for name in names))
    above = 0
    for workload in loads:
        plain = _median(figures[workload.name, "plain"])
        cells = []
        for name in names:
            values = figures.get((workload.name, name))
            cost = _median(values) if values else None
            ratio = cost.clock / plain.clock if cost else None
            by_processor = cost.processor / plain.processor if cost else None
            cells.append(
                f"{plain.clock:.0f} ns"
                if name == "plain"
                else "-"
                if not ratio
                else f"{ratio:.3f} ({by_processor:.3f})"
            )
            above += name == "leakline" and ratio is not None and ratio > workload.bar
        print(f"{workload.name:26}" + "".join(f"{cell:>22}" for cell in cells) + f"   bar {workload.bar}")
    for name in left_out:
        print(f"left out: {name} is not installed")
    for name, trouble in troubles.items():
        print(f"left out: {trouble}" if trouble.startswith(name) else f"left out: {name}: {trouble}")
    print("holds" if not above else f"does NOT hold: {above} above their bar")
    return int(above > 0)


if __name__ == "__main__":
    main()
