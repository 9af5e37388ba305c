"""The phases: what the process under torture does while its calls fail. One function a phase, run by the nursery."""

from __future__ import annotations

import errno
import json
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import programs
from control import Control
from programs import LONG_S, MOST_CORE, SHORT_S, WORK_CPU_S, Torture

from processes import DEADLINE_S, Process, at_rest, kinds, settle

#: how long calls fail for good in a process that serves
WINDOW_S: Final = 1.5
#: at the end of it a process that serves makes hardly any such call any more
CALM_S: Final = 0.5
MOST_CALLS_WHEN_CALM: Final = 200
#: failing calls in a whole case: a listener makes a thousand a second, until it is switched off in a quarter of one
MOST_CALLS: Final = 3_000
#: CPU time that a process which serves may use meanwhile, beside its part of a core
SERVING_CPU_S: Final = 0.2
FORBIDDEN_TEXT: Final = (
    "Traceback",
    "Assertion failed",
    "(src/",
    "ResourceWarning",
    "Exception ignored",
    "Fatal Python",
)


@dataclass
class Report:
    """How a case ended. `outcome`: "works", or the typed error; `wrong`: what is forbidden."""

    outcome: str = ""
    wrong: list[str] = field(default_factory=list)
    calls: int = 0
    failed: int = 0
    records: list[str] = field(default_factory=list)


class Case:
    """One case in the nursery: its steering, its folder, its processes."""

    def __init__(self, control: Control, folder: Path, peers: Peers, *, for_good: bool) -> None:
        self.control = control
        self.folder = folder
        self.peers = peers
        self.for_good = for_good
        self.report = Report()
        self.processes: list[Process] = []

    def start(self, program: Callable[[], object], name: str) -> Process:
        process = Process(program, self.folder / f"{name}.log")
        self.processes.append(process)
        return process

    def wrong(self, what: str) -> None:
        self.report.wrong.append(what)

    def end(self) -> None:
        """Nothing of the case is left, and no output of any process says what none may say."""
        self.control.disarm()
        for process in self.processes:
            process.kill()
            for line in process.text().splitlines():
                if any(word in line for word in FORBIDDEN_TEXT):
                    self.wrong(f"output: {line.strip()[:200]}")
                    break

    def ended(self, process: Process, what: str, allowed: tuple[int, ...] = (0,)) -> int:
        try:
            code = process.wait(what)
        except TimeoutError:
            self.wrong(f"hang: {what}: {process.stacks()}; {process.text().strip()[-300:]}")
            process.kill()
            return -9
        if code < 0:
            self.wrong(f"abort: signal {-code}: {what}")
        elif code not in allowed:
            self.wrong(f"exit code {code}: {what}")
        return code

    def check_serves(self, program: Callable[[], None]) -> None:
        helper = self.start(program, "afterwards")
        if self.ended(helper, "a client afterwards") != 0:
            self.wrong(f"does not serve afterwards: {helper.text().strip()[:300]}")

    def use_armed(self, process: Process, program: Callable[[], None]) -> None:
        """A helper uses `process` while its calls fail."""
        began, cpu = time.monotonic(), process.cpu_now_s()
        self.control.arm(process.pid)
        helper = self.start(program, "helper")
        code = self.ended(helper, "a client while calls fail", (0, 10))
        if self.for_good:
            time.sleep(max(0.0, WINDOW_S - (time.monotonic() - began)))  # calls fail for so long: it is what is tested
            before = self.control.failed
            time.sleep(CALM_S)
            if (failing := self.control.failed - before) > MOST_CALLS_WHEN_CALM:
                self.wrong(f"spin: {failing} failing calls in {CALM_S} s")
        self.control.disarm()
        seconds, used = time.monotonic() - began, process.cpu_now_s() - cpu
        if used > seconds * MOST_CORE + SERVING_CPU_S:
            self.wrong(f"spin: {used:.2f} s of CPU in {seconds:.2f} s")
        self.report.outcome = "works" if code == 0 else helper.text().strip()[:120]
        if not self.for_good and self.report.outcome.startswith(programs.NOT_RECOVERED):
            self.wrong(f"not recovered from one failure: {self.report.outcome}")

    @property
    def patience_s(self) -> float:
        return SHORT_S if self.for_good else LONG_S


class Peers:
    """What is not tortured, kept over many cases: a broker, and the service `shop`."""

    def __init__(self, folder: Path, port: int) -> None:
        self.broker = f"tcp://127.0.0.1:{port}"
        self.processes = [
            Process(programs.command("up", "--listen", self.broker, "--lease-s", "0.6"), folder / "broker.log"),
        ]
        self.processes.append(
            Process(programs.command("serve", "programs:shop", "--broker", self.broker), folder / "shop.log")
        )
        for process, text in zip(self.processes, ("ready", "serving"), strict=True):
            if not process.wait_for(text):
                raise RuntimeError(process.text())

    def close(self) -> None:
        for process in self.processes:
            process.kill()


# --- the process does it all itself


def inside(body: Callable[[Torture], None]) -> Callable[[Case], None]:
    def run(case: Case) -> None:
        result = case.folder / "result.json"
        result.unlink(missing_ok=True)
        torture = Torture(case.control, case.peers.broker, result, for_good=case.for_good)
        process = case.start(programs.in_process(body, torture), "program")
        code = case.ended(process, "the program")
        case.control.disarm()
        if result.exists():
            told = json.loads(result.read_text())
            case.report.outcome = told["outcome"]
            case.report.wrong += told["wrong"]
        elif code == 0:
            case.wrong("no result")

    return run


def client_reconnect(case: Case) -> None:
    """Service and broker end, and come back at the same addresses."""
    port = free_port()
    peers = Peers(case.folder, port)
    case.processes += peers.processes
    result = case.folder / "result.json"
    result.unlink(missing_ok=True)
    torture = Torture(case.control, peers.broker, result, for_good=case.for_good)
    process = case.start(programs.in_process(programs.outage, torture), "program")
    process.wait_for("ready")
    cpu, began = process.cpu_now_s(), time.monotonic()
    case.control.arm(process.pid)
    peers.close()
    again = Peers(case.folder, port)
    case.processes += again.processes
    time.sleep(WINDOW_S if case.for_good else 0.3)
    seconds, used = time.monotonic() - began, process.cpu_now_s() - cpu
    case.control.disarm()
    if used > seconds * MOST_CORE + SERVING_CPU_S:
        case.wrong(f"spin: {used:.2f} s of CPU in {seconds:.2f} s")
    case.ended(process, "the program")
    if result.exists():
        told = json.loads(result.read_text())
        case.report.outcome = told["outcome"]
        case.report.wrong += told["wrong"]


# --- commands, tortured from outside


def _command_start(case: Case, words: tuple[str, ...], ready: str, check: Callable[[], None]) -> None:
    process = case.start(programs.command(*words, control=case.control), "command")
    if process.wait_for(ready):
        if case.for_good:
            time.sleep(SHORT_S)  # calls go on failing for so long
        used, seconds = process.cpu_now_s(), WINDOW_S
        if used > seconds * MOST_CORE + WORK_CPU_S + 0.5:
            case.wrong(f"spin: {used:.2f} s of CPU")
        case.control.disarm()
        case.report.outcome = "works"
        case.check_serves(check)
        process.signal(signal.SIGTERM)
        case.ended(process, f"{words[0]} after SIGTERM")
        return
    case.control.disarm()
    case.ended(process, words[0], (1, 2, 3))
    said = [line for line in process.text().splitlines() if line.startswith("datacenter: ")]
    case.report.outcome = said[-1] if said else ""
    if not said:
        case.wrong(f"no typed error: {process.text().strip()[-1500:]}")


def broker_start(case: Case) -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    _command_start(case, ("up", "--listen", address), "broker ready", programs.round_trip(address, LONG_S))


def service_start(case: Case) -> None:
    broker = case.peers.broker
    check = programs.one_call(broker, "stall.double", (2,), LONG_S)
    _command_start(case, ("serve", "programs:stall", "--broker", broker), "serving", check)


def _same_descriptors(case: Case, process: Process, before: dict[str, int]) -> None:
    def left() -> str:
        now = dict(kinds(process.pid))
        return "" if now == before else f"leak: before {before}, after {now}"

    if wrong := settle(left):
        case.wrong(wrong)


def _command_serve(case: Case, process: Process, armed: Callable[[], None], after: Callable[[], None]) -> None:
    before = dict(kinds(process.pid))
    case.use_armed(process, armed)
    case.check_serves(after)
    _same_descriptors(case, process, before)
    process.signal(signal.SIGTERM)
    case.ended(process, "the command after SIGTERM")


def broker_serve(case: Case) -> None:
    """A service registers, a client resolves it and calls."""
    address = f"tcp://127.0.0.1:{free_port()}"
    process = case.start(programs.command("up", "--listen", address), "command")
    process.wait_for("broker ready")
    at_rest(process)
    _command_serve(case, process, programs.round_trip(address, case.patience_s), programs.round_trip(address, LONG_S))


def broker_relay(case: Case) -> None:
    """A client calls through a relay, which the broker makes for it; it ends later than the case, by its idle time."""
    address = f"tcp://127.0.0.1:{free_port()}"
    process = case.start(programs.command("up", "--listen", address), "command")
    process.wait_for("broker ready")
    at_rest(process)
    case.use_armed(process, programs.round_trip(address, case.patience_s, relay=True))
    case.check_serves(programs.round_trip(address, LONG_S, relay=True))
    process.signal(signal.SIGTERM)
    case.ended(process, "the broker after SIGTERM")


def service_serve(case: Case) -> None:
    """A client connects and calls."""
    broker = case.peers.broker
    process = case.start(programs.command("serve", "programs:stall", "--broker", broker), "command")
    process.wait_for("serving")
    at_rest(process)
    call = programs.one_call(broker, "stall.double", (2,), case.patience_s)
    _command_serve(case, process, call, programs.one_call(broker, "stall.double", (2,), LONG_S))


def service_reconnect(case: Case) -> None:
    """The broker ends and comes back with an empty memory: the service registers again."""
    port = free_port()
    peers = Peers(case.folder, port)
    case.processes += peers.processes
    process = case.start(programs.command("serve", "programs:stall", "--broker", peers.broker), "command")
    process.wait_for("serving")
    at_rest(process)
    before = dict(kinds(process.pid))
    case.control.arm(process.pid)
    peers.close()
    case.processes += Peers(case.folder, port).processes
    case.use_armed(process, programs.one_call(peers.broker, "stall.double", (2,), case.patience_s))
    case.check_serves(programs.one_call(peers.broker, "stall.double", (2,), LONG_S))
    _same_descriptors(case, process, before)
    process.signal(signal.SIGTERM)
    case.ended(process, "the service after SIGTERM")


def _command_stop(case: Case, process: Process) -> None:
    case.control.arm(process.pid)
    process.signal(signal.SIGTERM)
    if case.ended(process, "the command after SIGTERM") == 0:
        case.report.outcome = "works"


def broker_stop(case: Case) -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    process = case.start(programs.command("up", "--listen", address), "command")
    process.wait_for("broker ready")
    at_rest(process)
    case.check_serves(programs.round_trip(address, LONG_S))
    _command_stop(case, process)


def service_stop(case: Case) -> None:
    broker = case.peers.broker
    process = case.start(programs.command("serve", "programs:stall", "--broker", broker), "command")
    process.wait_for("serving")
    at_rest(process)
    _command_stop(case, process)


def free_port() -> int:
    from datacenter.testing import free_port as find

    return find()


PHASES: Final[dict[str, Callable[[Case], None]]] = {
    "broker-start": broker_start,
    "broker-serve": broker_serve,
    "broker-relay": broker_relay,
    "broker-stop": broker_stop,
    "service-start": service_start,
    "service-serve": service_serve,
    "service-reconnect": service_reconnect,
    "service-stop": service_stop,
    "client": inside(programs.client_life),
    "client-call": inside(programs.client_call),
    "client-close": inside(programs.client_close),
    "client-exit": inside(programs.client_exit),
    "client-async": inside(programs.async_client_life),
    "client-reconnect": client_reconnect,
    "client-forked": inside(programs.forked_client),
    "relay": inside(programs.relay_life),
}


def play(name: str, case: Case, fail_at: int, error: str) -> Report:
    """Runs one case. `fail_at` 0 only counts."""
    case.control.set(fail_at, getattr(errno, error), case.for_good)
    try:
        PHASES[name](case)
    except TimeoutError as late:  # a forked child comes through here as well, and must not end the others
        alive = [process.stacks() for process in case.processes if process.poll() is None]
        case.wrong(f"hang: {late}; {'; '.join(alive)}")
    case.end()
    report = case.report
    report.calls, report.failed = case.control.calls, case.control.failed
    if report.failed > MOST_CALLS:
        case.wrong(f"spin: {report.failed} failing calls")
    report.records = case.control.records()
    return report


__all__ = ["DEADLINE_S", "PHASES", "Case", "Peers", "Report", "play"]
