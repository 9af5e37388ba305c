"""2 000 ends of processes: every way to end, at any moment, whoever holds what; none aborts, hangs, or leaves a trace.

    python exits.py --runs 2000 [--seed N]

A round is a broker, a service, and some programs of exiting.py (and `datacenter` commands). Then something happens to
the broker and the service, or nothing, and at random moments of it each program is ended in a way of its own: that is a
run. It holds when each
- ends within a second (a service: and its `drain_s`) with the status that its code determined; what its threads had to
  queue for a processor is not counted;
- says nothing but what Python says of the way it ended, and in one log line what was still open;
- has told every waiting caller, in a typed error, that its call is over;
and when afterwards the broker and the service, if they lived through it, have the descriptors of the beginning, kind by
kind, and no connection in CLOSE_WAIT.

A seed repeats what is chosen; the moments within a process are its own.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import os
import random
import re
import signal
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = Path(__file__).parent

from exit_services import HOLDERS  # noqa: E402
from exiting import ASYNC_WAYS, WAYS  # noqa: E402
from figures import distribution, finish, kinds_at_rest, wait_for, wait_for_kinds  # noqa: E402

from datacenter.options import CLOSE_DEADLINE_S, DRAIN_S  # noqa: E402
from datacenter.testing import Launcher, NotReadyError, Process, free_port  # noqa: E402

END_S = CLOSE_DEADLINE_S
REST_S = 60.0
READY_S = 60.0
HANG_S = 15.0
A_ROUND = 10
COMMANDS = ("serve", "up")
MOMENTS = ("nothing happens", "service stopped", "both stopped", "service killed", "broker killed", "both killed",
           "service back", "broker back")  # fmt: skip
#: never, whatever the end
ABORTS = ("Assertion", "Aborted", "Fatal", "WRONG", "Segmentation")
COMPLAINTS = (*ABORTS, "Traceback", "Exception ignored", "ResourceWarning", "never awaited", "never retrieved",
              "was destroyed", "ERROR ")  # fmt: skip
UNCLOSED = re.compile(r"not closed within|did not|could not be closed|left open")
SWALLOWED = re.compile(r"Exception ignored in: .*__del__(?s:.)*?^KeyboardInterrupt", re.MULTILINE)
LOG_LINE = re.compile(r"^INFO datacenter\S* closed at exit in \d+ ms: .*$", re.MULTILINE)
ERROR_LINE = re.compile(r"^(?:\w+\.)*(\w*(?:Error|Exception|Exit|Interrupt)\b.*)$", re.MULTILINE)


@dataclass
class Choice:
    """What is to end, and how."""

    holder: str
    way: str
    activity: str

    @property
    def is_command(self) -> bool:
        return self.holder in COMMANDS


def choose(chance: random.Random, holder: str) -> Choice:
    if holder in COMMANDS:
        return Choice(holder, chance.choice(["SIGTERM", "SIGINT"]), "idle")
    ways = [*WAYS, *ASYNC_WAYS] if HOLDERS[holder].is_async else [*WAYS]
    return Choice(holder, chance.choice(ways), chance.choice(["idle", "calling", "calling", "connecting"]))


def plan(chance: random.Random, runs: int, only: str) -> list[Choice]:
    """Every holder once, as far as `runs` go, then any; or `only` one."""
    holders = [only] if only else [*HOLDERS, *COMMANDS]
    chance.shuffle(holders)
    holders += chance.choices(holders, k=max(0, runs - len(holders)))
    return [choose(chance, holder) for holder in holders[:runs]]


class Subject:
    """A process that is to end."""

    def __init__(self, choice: Choice, process: Process) -> None:
        self.choice = choice
        self.process = process
        self.dropped = False  # the first interrupt, by Python

    def end(self, chance: random.Random) -> tuple[float, int]:
        """(seconds from the trigger to the end, status)."""
        way = self.choice.way
        prefer(self.process.pid)
        if way in ("SIGTERM", "SIGTERM-handled", "SIGINT", "SIGINT-twice"):
            at = time.monotonic()
            self.process.signal(signal.SIGTERM if "SIGTERM" in way else signal.SIGINT)
            if way == "SIGINT-twice":
                time.sleep(chance.uniform(0, 0.1))
                self.process.signal(signal.SIGINT)
            if self._swallowed():
                at = time.monotonic()
                self.process.signal(signal.SIGINT)
            status = self.process.wait(HANG_S)
            return time.monotonic() - at, status
        self.process.tell("leave")
        status = self.process.wait(HANG_S)
        ended = time.monotonic()
        _, found = self.process.wait_line(r"^leaving (\S+)")
        return ended - float(found[1]), status

    def _swallowed(self) -> bool:
        """Whether Python dropped the interrupt, as it does with every exception in a finaliser, saying so: a person
        presses Ctrl-C once more.
        """
        if "SIGINT" not in self.choice.way or self.choice.is_command:
            return False
        end = time.monotonic() + self.bound_s
        while self.process.running and time.monotonic() < end:
            if SWALLOWED.search(self.process.errors):
                self.dropped = True
                return True
            time.sleep(0.01)
        return False

    @property
    def bound_s(self) -> float:
        return END_S + (DRAIN_S if self.choice.is_command else HOLDERS[self.choice.holder].extra_s)

    def faults(self, seconds: float, lost_s: float, status: int) -> list[str]:
        """What did not hold; for `lost_s` of `seconds` its threads were ready, and others ran."""
        late = seconds - lost_s > self.bound_s
        found = [f"ended after {seconds:.2f} s, {lost_s:.2f} s of them lost to others"] if late else []
        if status not in self._allowed():
            found.append(f"status {status}, not {self._allowed()}")
        found += [f"said {word!r}" for word in self._complaints()]
        if not self.choice.is_command:
            found += self._log_faults()
        return found

    def _allowed(self) -> tuple[int, ...]:
        if self.choice.is_command:
            return (0,)
        status, _ = {**WAYS, **ASYNC_WAYS}[self.choice.way]
        # Python gives signals back their default action at the very end, and SIGINT may come so late.
        return (status, -signal.SIGINT) if self.choice.way == "SIGINT-at-exit" else (status,)

    def _complaints(self) -> list[str]:
        errors = self.process.errors
        if self.choice.is_command:
            return [word for word in COMPLAINTS if word in errors]
        holder, way = HOLDERS[self.choice.holder], self.choice.way
        _, last = {**WAYS, **ASYNC_WAYS}[way]
        if way in ("SIGINT-twice", "SIGINT-at-exit") or self.dropped:
            # Python tells wherever the second one arrives; asyncio, what it could not finish.
            foreign = [
                line
                for line in ERROR_LINE.findall(errors)
                if not re.match("Keyboard|Cancelled|GeneratorExit|SystemExit|Exception ignored", line)
            ]
            return [word for word in ABORTS if word in errors] + foreign
        found = [word for word in COMPLAINTS if word in errors]
        if holder.warns and "ResourceWarning" in found:
            found.remove("ResourceWarning")  # that is what Python tells the author of a program that forgets to close
        if last and "Traceback" in found:
            blocks = errors.count("Traceback (most recent call last)")
            chained = errors.count("During handling of the above") + errors.count("direct cause of the following")
            ends = [line for line in errors.splitlines() if line.split(".")[-1].startswith(last.split(".")[-1])]
            if blocks - chained == 1 and ends:
                found.remove("Traceback")
        if not holder.mute:
            found += UNCLOSED.findall(errors)
        return found

    def _log_faults(self) -> list[str]:
        """One line names what was left to the exit hook."""
        named, way = HOLDERS[self.choice.holder].named, self.choice.way
        lines = LOG_LINE.findall(self.process.errors)
        if len(lines) > 1:
            return [f"{len(lines)} lines say what was closed at exit"]
        if named is None or way == "SIGINT-twice" or (not named and way == "SIGINT-at-exit"):
            return []  # it depends on where the interrupt comes
        if not named or way in ("SIGTERM", "os._exit"):
            return [f"something was left: {line}" for line in lines]
        return [] if lines and named in lines[0] else [f"no log line names the {named}"]


def prefer(pid: int) -> None:
    """Has a process run before others, as far as we may: its end is timed, not the load of the machine."""
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            os.setpriority(os.PRIO_PROCESS, int(thread), -15)


@contextlib.contextmanager
def telling_where(subject: Subject) -> Iterator[None]:
    """If a process hangs, its threads' stacks are in the message."""
    try:
        yield
    except NotReadyError as error:
        if not subject.choice.is_command:
            subject.process.signal(signal.SIGUSR1)
            with contextlib.suppress(AssertionError):
                wait_for("the stacks", lambda: "Current thread" in subject.process.errors, 2)
        raise NotReadyError(f"{subject.choice}: {error}\n{subject.process.errors[-6000:]}") from None


class Queueing:
    """How long the threads of a process were ready to run while others ran: the load of the machine, and no fault of
    the process. A context manager: `seconds()` is what has come together inside.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.first: dict[str, int] = {}
        self.last: dict[str, int] = {}
        self.over = threading.Event()
        self.watcher = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Queueing:
        self._look()
        self.first = dict(self.last)
        self.watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.watcher.join()

    def _watch(self) -> None:
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), -15)
        while not self.over.wait(0.005):
            self._look()

    def _look(self) -> None:
        with contextlib.suppress(OSError):
            for thread in os.listdir(f"/proc/{self.pid}/task"):
                with contextlib.suppress(OSError), open(f"/proc/{self.pid}/task/{thread}/schedstat") as file:
                    self.last[thread] = int(file.read().split()[1])

    def seconds(self) -> float:
        return sum(waited - self.first.get(thread, 0) for thread, waited in self.last.items()) / 1e9


class Nobody:
    """An address where a connection is in flight for ever: a listener whose queue is full."""

    def __init__(self) -> None:
        self.listener = socket.socket()
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(0)
        self.fillers = []
        for _ in range(3):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(self.listener.getsockname())
            self.fillers.append(filler)
        self.address = f"tcp://127.0.0.1:{self.listener.getsockname()[1]}"

    def close(self) -> None:
        for one in (self.listener, *self.fillers):
            one.close()


class Round:
    """A broker, a service, and those who are to end."""

    def __init__(self, launch: Launcher, chance: random.Random, choices: list[Choice]) -> None:
        self.launch = launch
        self.chance = chance
        self.moment = chance.choice(MOMENTS)
        self.nobody = Nobody()
        self.broker = launch.broker()
        self.service = launch.service("shop:shop", self.broker)
        self.port = int(self.broker.address.rpartition(":")[2])
        self.before = {process: kinds_at_rest(process.pid) for process in (self.broker, self.service)}
        self.subjects = [self._start(choice) for choice in choices]
        for subject in self.subjects:
            with telling_where(subject):
                subject.process.wait_line("^ready|^serving|^broker ready", READY_S)

    def _start(self, choice: Choice) -> Subject:
        if choice.holder == "up":
            return Subject(choice, self.launch.command("up", "--listen", f"tcp://127.0.0.1:{free_port()}"))
        if choice.holder == "serve":
            return Subject(choice, self.launch.start_service("shop:never", self.broker))
        address = self.nobody.address if choice.activity == "connecting" else self.broker.address
        words = (choice.holder, choice.way, choice.activity, address)
        return Subject(choice, self.launch.python("-W", "default", str(PROGRAMS / "exiting.py"), *words))

    def disturb(self) -> None:
        """Lets the moment come."""
        chosen = [process for name, process in (("service", self.service), ("broker", self.broker))
                  if name in self.moment or "both" in self.moment]  # fmt: skip
        for process in chosen:
            if "stopped" in self.moment:
                process.signal(signal.SIGSTOP)
            else:
                process.kill()
        if "stopped" in self.moment:
            for subject in self.subjects:
                if not subject.choice.is_command and self.chance.random() < 0.5:
                    subject.process.tell("flood")
        if "back" in self.moment:
            time.sleep(self.chance.uniform(0, 0.5))
            if "service" in self.moment:
                self.launch.start_service("shop:shop", self.broker)
            else:
                self.launch.command("up", "--listen", self.broker.address)

    def play(self) -> tuple[list[tuple[str, float]], list[str]]:
        """Ends each: ((holder, seconds) of each, what did not hold)."""
        self.disturb()
        self.chance.shuffle(self.subjects)
        seconds, faults = [], []
        for subject in self.subjects:
            time.sleep(self.chance.uniform(0, 0.1))
            choice = subject.choice
            name = f"{choice.holder}, {choice.way}, {choice.activity}, {self.moment}"
            queueing = Queueing(subject.process.pid)
            try:
                with telling_where(subject), queueing:
                    took, status = subject.end(self.chance)
            except (NotReadyError, BrokenPipeError) as error:
                seconds.append((choice.holder, HANG_S))
                faults.append(f"{name}: {error}\n{subject.process.errors[-2000:]}")
                continue
            seconds.append((choice.holder, took))
            wrong = subject.faults(took, queueing.seconds(), status)
            if wrong:
                faults.append(f"{name}: {'; '.join(wrong)}\n{subject.process.errors[-3000:]}")
        return seconds, faults + self._peers()

    def _peers(self) -> list[str]:
        """What the exits left in those who lived through them."""
        self.nobody.close()
        if "killed" in self.moment or "back" in self.moment:
            return []
        faults = []
        for name, process in (("service", self.service), ("broker", self.broker)):
            process.signal(signal.SIGCONT)
            after = wait_for_kinds(process.pid, self.before[process], REST_S)
            if after != self.before[process]:
                faults.append(f"the {name} had {self.before[process]}, has {after}; {self.moment}")
        ports = {self.port, int(self.service.endpoint.rpartition(":")[2])}
        try:
            wait_for("no CLOSE_WAIT", lambda: not close_wait(ports), REST_S)
        except AssertionError:
            faults.append(f"{close_wait(ports)} connections in CLOSE_WAIT; {self.moment}")
        return faults


def close_wait(ports: set[int]) -> int:
    """Connections in CLOSE_WAIT with one of these ports at either end."""
    found = 0
    with open("/proc/net/tcp") as table:
        next(table)
        for line in table:
            local, remote, state = line.split()[1:4]
            found += state == "08" and bool(ports & {int(end.rpartition(":")[2], 16) for end in (local, remote)})
    return found


def play_round(seed: int, choices: list[Choice]) -> tuple[list[tuple[str, float]], list[str]]:
    with Launcher(cwd=PROGRAMS) as launch:
        return Round(launch, random.Random(seed), choices).play()


def check(runs: int, seed: int, parallel: int, only: str) -> list[str]:
    """Plays rounds until `runs` processes have ended; prints the table, returns what did not hold."""
    chance = random.Random(seed)
    choices = plan(chance, runs, only)
    rounds = [choices[at : at + A_ROUND] for at in range(0, runs, A_ROUND)]
    seconds: dict[str, list[float]] = defaultdict(list)
    faults: list[str] = []
    began, done = time.monotonic(), 0
    with concurrent.futures.ThreadPoolExecutor(parallel) as pool:
        playing = [pool.submit(play_round, chance.randrange(1 << 30), subjects) for subjects in rounds]
        for future in concurrent.futures.as_completed(playing):
            try:
                took, wrong = future.result()
            except (NotReadyError, AssertionError) as error:
                took, wrong = [], [f"a round could not be played: {error}"]
            for holder, value in took:
                seconds[holder].append(value)
            faults += wrong
            done += len(took)
            print(f"{done} runs, {len(faults)} faults, {time.monotonic() - began:.0f} s", flush=True)
            for fault in wrong:
                print(f"  {fault}", flush=True)
    for holder, values in sorted(seconds.items()):
        print(f"{holder:32} {distribution(values)}")
    print(f"{'all':32} {distribution([value for values in seconds.values() for value in values])}")
    return faults


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 30))
    parser.add_argument("--parallel", type=int, default=2, help="rounds at a time")
    parser.add_argument("--holder", default="", help="only this one")
    options = parser.parse_args()
    print(f"seed {options.seed}")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it, and so would they
    finish(check(options.runs, options.seed, options.parallel, options.holder))


if __name__ == "__main__":
    main()
