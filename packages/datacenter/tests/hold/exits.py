"""The end of a process at a random moment of an outage: within 1 s, with its own status, and without a word of
complaint.

    python exits.py --runs 200

A round is a broker, a service, and some clients that call without pause, each a program of exiting.py or a
`datacenter` command. Then there is an outage, or none, and at random moments of it each of them is ended in a way of
its own: that is a run.
"""

from __future__ import annotations

import argparse
import random
import signal
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from figures import distribution, finish

from datacenter.testing import Launcher, NotReadyError, Process, RunningBroker, RunningService, free_port

PROGRAMS = Path(__file__).parent
END_S = 1.0
CLIENTS_A_ROUND = 6
COMPLAINTS = ("Assertion", "Aborted", "Fatal", "Traceback", "Exception ignored", "ResourceWarning", "never awaited",
              "never retrieved", "was destroyed")  # fmt: skip

CLIENTS = ("sync", "sync-global", "sync-unclosed", "async", "async-global", "async-unclosed")
MANNERS = ("return", "exception", "thread", "SIGTERM", "SIGTERM handled", "SIGINT")
SIGNALS = ("SIGTERM", "SIGINT")
OUTAGES = ("none", "service killed", "broker killed", "both killed", "service back", "broker back")


@dataclass
class Subject:
    """A process that is to end, and how."""

    what: str
    manner: str
    process: Process

    @property
    def allowed(self) -> tuple[int, str]:
        """(status, the last line of the one traceback that may be printed, or "")."""
        if self.what in ("serve", "up") or self.manner in ("return", "thread", "SIGTERM handled"):
            return 0, ""
        if self.manner == "exception":
            return 1, "RuntimeError: deliberate"
        if self.manner == "SIGTERM":
            return -signal.SIGTERM, ""
        return -signal.SIGINT, "KeyboardInterrupt"

    def end(self) -> tuple[float, int]:
        """(seconds from the trigger to the end, status)."""
        if self.manner in SIGNALS or self.manner == "SIGTERM handled":
            at = time.monotonic()
            self.process.signal(signal.SIGINT if self.manner == "SIGINT" else signal.SIGTERM)
            status = self.process.wait(5)
            return time.monotonic() - at, status
        self.process.tell("leave")
        status = self.process.wait(5)
        ended = time.monotonic()
        _, found = self.process.wait_line(r"^leaving (\S+)")
        return ended - float(found[1]), status


class Round:
    """The actors of one round; `subjects` are those who are to end."""

    def __init__(self, launch: Launcher, manners: list[str]) -> None:
        self.launch = launch
        self.outage = random.choice(OUTAGES)
        self.port = free_port()
        self.address = f"tcp://127.0.0.1:{self.port}"
        self.broker = self.infrastructure("up", "broker", manners)
        self.service = self.infrastructure("serve", "server", manners)
        waiting = launch.python(str(PROGRAMS / "calling_client.py"), self.address)
        self.clients = [self.program(what, manners.pop()) for what in random.sample(CLIENTS, CLIENTS_A_ROUND)]
        for client in self.clients:
            client.process.wait_line("^ready")
        waiting.wait_line('"instance"')

    def program(self, what: str, manner: str) -> Subject:
        way = "signal" if manner in SIGNALS else "handler" if "handled" in manner else manner
        words = ("-W", "default", str(PROGRAMS / "exiting.py"), what, way, self.address)
        return Subject(what, manner, self.launch.python(*words))

    def infrastructure(self, command: str, program: str, manners: list[str]) -> Subject:
        """The broker or the service: the command, or a program of the library's user."""
        if random.random() < 0.5:
            subject = self.program(program, manners.pop())
            subject.process.wait_line("^ready")
            return subject
        process: RunningBroker | RunningService
        process = self.launch.broker(self.port) if command == "up" else self.launch.service("shop:shop", self.address)
        return Subject(command, random.choice(SIGNALS), process)

    def disturb(self) -> None:
        """Begins the outage."""
        for name, subject in (("service", self.service), ("broker", self.broker)):
            if name in self.outage or "both" in self.outage:
                subject.process.kill()
        if "back" in self.outage:
            time.sleep(random.uniform(0, 0.5))
            if "service" in self.outage:
                self.launch.start_service("shop:shop", self.address)
            else:
                self.launch.command("up", "--listen", self.address)

    def subjects(self) -> list[Subject]:
        """Who is to end: the clients in any order, then what is left of service and broker, in any order."""
        random.shuffle(self.clients)
        last = [subject for subject in (self.service, self.broker) if subject.process.running]
        random.shuffle(last)
        return [*self.clients, *last]


def complaints(errors: str, last_line: str) -> list[str]:
    """What a process should not have said, beside the one traceback that ends in `last_line`."""
    found = [word for word in COMPLAINTS if word in errors]
    if last_line and "Traceback" in found:
        blocks = errors.count("Traceback (most recent call last)")
        chained = errors.count("During handling of the above") + errors.count("direct cause of the following")
        if blocks - chained == 1 and errors.rstrip().splitlines()[-1].startswith(last_line):
            found.remove("Traceback")
    return found


def judge(subject: Subject, outage: str) -> tuple[float, list[str]]:
    """Ends one subject: (seconds it took, what did not hold)."""
    name = f"{subject.what}, {subject.manner}, {outage}"
    try:
        seconds, status = subject.end()
    except NotReadyError as error:
        return 5.0, [f"{name}: {error}"]
    wanted, last_line = subject.allowed
    faults = [f"{name}: ended after {seconds:.2f} s"] if seconds > END_S else []
    if status != wanted:
        faults.append(f"{name}: status {status}, not {wanted}")
    bad = complaints(subject.process.errors, last_line)
    if subject.what.endswith("-unclosed") and "ResourceWarning" in bad:
        bad.remove("ResourceWarning")  # that is what Python tells the author of a program that forgets to close
    if bad or status != wanted:
        faults.append(f"{name}: said {bad}:\n{subject.process.errors[-3000:]}")
    return seconds, faults


def check(runs: int) -> list[str]:
    """Plays rounds until `runs` processes have ended; prints the table, returns what did not hold."""
    seconds: dict[str, list[float]] = defaultdict(list)
    faults: list[str] = []
    done = 0
    while done < runs:
        manners = [*random.sample(MANNERS, 2), *random.sample(MANNERS, CLIENTS_A_ROUND)]
        with Launcher(cwd=PROGRAMS) as launch:
            around = Round(launch, manners)
            around.disturb()
            for subject in around.subjects():
                time.sleep(random.uniform(0, 0.3))
                took, wrong = judge(subject, around.outage)
                seconds[subject.what].append(took)
                faults += wrong
                done += 1
        print(f"{done} runs, {len(faults)} faults", flush=True)
    for what, values in sorted(seconds.items()):
        print(f"{what:16} {distribution(values)}")
    print(f"{'all':16} {distribution([value for values in seconds.values() for value in values])}")
    return faults


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 30))
    options = parser.parse_args()
    random.seed(options.seed)
    print(f"seed {options.seed}")
    finish(check(options.runs))


if __name__ == "__main__":
    main()
