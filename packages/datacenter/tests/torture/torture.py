"""`make torture`: fails the Nth descriptor-creating call of every phase of a datacenter process, for every N.

For each phase (phases.py) the calls are counted first. Then for each N, each of EMFILE, ENFILE, ENOMEM, once and for
good, a process goes through the phase in which that call fails. It must work, or raise a typed error; when the failure
has passed it must serve, and have every descriptor back. Forbidden: to abort, hang, spin, leak, raise anything else, or
leave a call without an end.

    torture.py                                  all (minutes)
    torture.py client relay --every 5 --error EMFILE    some
    torture.py --sample                         one once and one for good of each phase, another one each time
    torture.py client --at 7 --error ENFILE --for-good  one case, with the list of its calls
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).parent
sys.path += [str(HERE), str(HERE.parent / "broker")]

from control import Control, build  # noqa: E402
from phases import PHASES  # noqa: E402

ERRORS: Final = ("EMFILE", "ENFILE", "ENOMEM")
CASE_DEADLINE_S: Final = 120.0
#: a case mostly waits: for what is tested to go on for a while, and for what must end
JOBS_PER_CORE: Final = 3


@dataclass(frozen=True, order=True)
class Asked:
    """A case: the `at`-th call of the phase fails with `error`."""

    phase: str
    at: int
    error: str
    for_good: bool

    def command(self) -> str:
        mode = " --for-good" if self.for_good else ""
        return f"{Path(__file__).name} {self.phase} --at {self.at} --error {self.error}{mode}"


class Nursery:
    """A nursery process (nursery.py), which plays one case at a time."""

    def __init__(self, library: Path, folder: Path) -> None:
        folder.mkdir()
        Control(folder / "control")  # it is there before the injector looks for it
        environment = {
            **os.environ,
            "LD_PRELOAD": str(library),
            "TORTURE_CONTROL": str(folder / "control"),
            "DATACENTER_RUNTIME_DIR": str(folder / "runtime"),  # else the ledgers of others are counted
            "PYTHONWARNINGS": "always::ResourceWarning",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "nursery.py"), str(folder)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def play(self, asked: Asked) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        words = {"phase": asked.phase, "at": asked.at, "error": asked.error, "for_good": asked.for_good}
        self._process.stdin.write(json.dumps(words) + "\n")
        self._process.stdin.flush()
        killer = threading.Timer(CASE_DEADLINE_S, self._process.kill)
        killer.start()
        line = self._process.stdout.readline()
        killer.cancel()
        if not line:
            raise RuntimeError(f"the nursery ended in: {asked.command()}")
        return dict(json.loads(line))

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Tally:
    """What came out, by phase."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.cases: dict[str, Counter[str]] = {}
        self.forbidden: list[tuple[Asked, list[str], str]] = []
        self._lock = threading.Lock()

    def take(self, asked: Asked, told: dict[str, Any]) -> None:
        with self._lock:
            counts = self.cases.setdefault(asked.phase, Counter())
            counts["cases"] += 1
            done = sum(counted["cases"] for counted in self.cases.values())
            if done % 100 == 0:
                print(f"{done} cases, at {asked.phase}", file=sys.stderr, flush=True)
            if asked.at == 0:
                self.calls[asked.phase] = max(self.calls[asked.phase], told["calls"])
            elif not told["failed"]:
                counts["not reached"] += 1
            records = told["records"]
            where = records[asked.at - 1] if 0 < asked.at <= len(records) else ""
            if told["wrong"]:
                counts["forbidden"] += 1
                self.forbidden.append((asked, told["wrong"], where))
                print(f"FORBIDDEN  {asked.command()}   # {where}\n           {'; '.join(told['wrong'])}", flush=True)
            elif told["failed"]:
                counts["works" if told["outcome"] == "works" else "typed error"] += 1

    def table(self) -> str:
        columns = ("cases", "works", "typed error", "not reached", "forbidden")
        lines = [f"{'phase':18} {'calls':>6} " + " ".join(f"{column:>12}" for column in columns)]
        for phase, counts in self.cases.items():
            lines.append(f"{phase:18} {self.calls[phase]:6} " + " ".join(f"{counts[column]:12}" for column in columns))
        total = sum((counts for counts in self.cases.values()), Counter())
        lines.append(f"{'':25} " + " ".join(f"{total[column]:12}" for column in columns))
        return "\n".join(lines)


def run(asked: list[Asked], nurseries: list[Nursery], tally: Tally) -> None:
    """Plays the cases, as many at a time as there are nurseries."""
    waiting: queue.SimpleQueue[Asked] = queue.SimpleQueue()
    for one in asked:
        waiting.put(one)
    problems: list[BaseException] = []

    def work(nursery: Nursery) -> None:
        while not problems:
            try:
                one = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                tally.take(one, nursery.play(one))
            except BaseException as problem:
                problems.append(problem)

    threads = [threading.Thread(target=work, args=(nursery,)) for nursery in nurseries]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if problems:
        raise problems[0]


def numbers(calls: int, every: int) -> list[int]:
    """Which calls fail: each `every`-th, the first, the last; two more than were counted, as no two runs are alike."""
    return sorted({*range(1, calls + 3, every), calls}) if calls else []


def sample(asked: list[Asked]) -> list[Asked]:
    """Of each phase and mode, one at random."""
    groups: dict[tuple[str, bool], list[Asked]] = {}
    for one in asked:
        groups.setdefault((one.phase, one.for_good), []).append(one)
    return [random.choice(group) for group in groups.values()]


def show_one(nursery: Nursery, asked: Asked) -> bool:
    told = nursery.play(asked)
    for number, record in enumerate(told["records"], 1):
        failed = number == asked.at or (asked.for_good and 0 < asked.at < number)
        print(f"{'FAILED' if failed else '':7}{number:4} {record}")
    print(f"outcome: {told['outcome']}")
    for wrong in told["wrong"]:
        print(f"FORBIDDEN: {wrong}")
    return not told["wrong"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("phases", nargs="*", metavar="PHASE", help=", ".join(PHASES))
    parser.add_argument("--at", type=int, help="only this call; 0: none fails")
    parser.add_argument("--every", type=int, default=1, help="only each so-manieth call")
    parser.add_argument("--sample", action="store_true", help="one call of each phase and mode")
    parser.add_argument("--error", choices=ERRORS, action="append")
    parser.add_argument("--for-good", action="store_true", help="all calls from there on, not only this one")
    parser.add_argument("--once", action="store_true", help="not for good")
    parser.add_argument("--jobs", type=int, default=JOBS_PER_CORE * (os.cpu_count() or 1))
    arguments = parser.parse_args()
    unknown = set(arguments.phases) - PHASES.keys()
    if unknown:
        parser.error(f"no such phase: {', '.join(unknown)}; there are {', '.join(PHASES)}")
    names = arguments.phases or list(PHASES)
    modes = (True,) if arguments.for_good else (False,) if arguments.once else (False, True)
    errors = arguments.error or ERRORS
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="torture-") as folder:
        library = build(Path(folder))
        one = arguments.at is not None
        nurseries = [Nursery(library, Path(folder) / str(number)) for number in range(1 if one else arguments.jobs)]
        try:
            if one:
                asked = [Asked(name, arguments.at, errors[0], modes[0] and arguments.for_good) for name in names]
                return 0 if all(show_one(nurseries[0], each) for each in asked) else 1
            tally = Tally()
            counted = names if arguments.sample else [name for name in names for _ in range(2)]
            run([Asked(name, 0, "EMFILE", False) for name in counted], nurseries, tally)
            cases = [
                Asked(name, at, error, mode)
                for name in names
                for at in numbers(tally.calls[name], arguments.every)
                for error in errors
                for mode in modes
            ]
            run(sample(cases) if arguments.sample else cases, nurseries, tally)
        finally:
            for nursery in nurseries:
                nursery.close()
    print(tally.table())
    print(f"{time.monotonic() - began:.0f} s")
    for case, wrong, where in tally.forbidden:
        print(f"{case.command()}   # {where}: {wrong[0]}")
    print("holds" if not tally.forbidden else "does not hold")
    return 1 if tally.forbidden else 0


if __name__ == "__main__":
    sys.exit(main())
