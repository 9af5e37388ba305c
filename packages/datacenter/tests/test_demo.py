"""Incident A with real processes: the naive client of the casebook, its repaired version, and the demo as a whole."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import msgspec
import pytest

from datacenter.demo.outcome import TOLERANCE, Forecast, Ledger, Naive, Ours, Outcome
from datacenter.demo.play import NAIVE_WINDOW_S, TARGET, naive_client
from datacenter.demo.watch import Watched, forecast
from datacenter.testing import Launcher, free_port
from leakline.observe import Report

pytestmark = pytest.mark.alone

REPOSITORY = Path(__file__).parents[3]
SERVICE = "datacenter.demo.greeter:greeter"
DEMO = [sys.executable, "-m", "datacenter", "demo"]
DEADLINE_S = 40.0
LEAKS_FOR_S = 6.0  # seconds of the leak over which two rates are compared


def look_until(condition: Callable[[], object], what: str, *watched: Watched) -> None:
    """Look at processes 20 times a second until something is so; fails after a generous deadline."""
    end = time.monotonic() + DEADLINE_S
    while not condition():
        for each in watched:
            each.step()
        assert time.monotonic() < end, f"did not happen within {DEADLINE_S} s: {what}"
        time.sleep(0.05)


@pytest.fixture
def launch() -> Iterator[Launcher]:
    """Starts processes from the root of the repository, ends all."""
    with Launcher(cwd=REPOSITORY) as started:
        yield started


def test_a_long_outage_ruins_the_naive_client_and_not_the_repaired_one(launch: Launcher) -> None:
    broker = launch.broker()
    listen = f"tcp://127.0.0.1:{free_port()}"
    service = launch.service(SERVICE, broker, listen=listen)
    naive = Watched("naive", launch.python(naive_client(), broker.address, TARGET), NAIVE_WINDOW_S)
    repaired_module = ("-m", "casebook.a_undrained_monitor.service_cli_fixed")
    repaired = Watched("repaired", launch.python(*repaired_module, broker.address, TARGET))
    both = (naive, repaired)
    look_until(lambda: all(each.figures.get("calls") for each in both), "both are answered", *both)

    service.kill()
    service = launch.service(SERVICE, broker, listen=listen)
    answered = {each.name: each.figures["calls"] for each in both}
    # A second of calls more: each has noticed the new instance. This is why nobody saw it coming.
    look_until(lambda: all(each.figures["calls"] > answered[each.name] + 32 for each in both), "a restart", *both)

    service.kill()
    look_until(lambda: forecast(naive.report, 0.0), "leakline says that the naive client leaks, and why", *both)
    end = time.monotonic() + LEAKS_FOR_S
    look_until(lambda: time.monotonic() > end, "the leak goes on", *both)

    launch.service(SERVICE, broker, listen=listen)
    answered = {each.name: each.figures["calls"] for each in both}
    look_until(lambda: repaired.figures["calls"] > answered["repaired"] + 32, "the repaired one is answered", *both)
    assert naive.figures["calls"] == answered["naive"]  # nothing of its context moves any more

    leaking, healthy = naive.final_report(), repaired.final_report()
    assert leaking is not None
    own = naive.closed_per_second()
    assert own is not None
    assert leaking.growth["eventfd"] == pytest.approx(own, rel=TOLERANCE)
    assert healthy is not None
    assert healthy.verdict == "steady"
    assert healthy.findings == ()

    repaired.process.signal(signal.SIGINT)
    assert repaired.process.wait() == 0, repaired.process.errors


NAIVE_CLIENT = REPOSITORY / "casebook" / "a_undrained_monitor" / "service_cli_demo.py"
LEAKING_LINE = next(
    number
    for number, line in enumerate(NAIVE_CLIENT.read_text().splitlines(), 1)
    if line.lstrip().startswith("query = self.context.socket(zmq.DEALER)")
)


def test_the_demo_shows_what_it_is_to_show() -> None:
    began = time.monotonic()
    done = subprocess.run([*DEMO, "--json"], capture_output=True, text=True, timeout=110, cwd=REPOSITORY)
    seconds = time.monotonic() - began
    shown = json.loads(done.stdout)
    assert (done.returncode, shown["differs"]) == (0, []), done.stderr
    assert seconds < 80  # 75 s of its own, and Python's start on a busy machine
    assert shown["first_outage_s"] >= 15
    assert shown["outages"] >= 3
    naive = shown["naive"]
    assert naive["report"]["verdict"] == "leak"
    assert "zmq.io-thread-blocked" in [finding["id"] for finding in naive["report"]["findings"]]
    assert naive["forecast"]["off"] <= 0.2
    assert naive["last_words"] == "zmq.error.ZMQError: Too many open files"
    attached = shown["attached"]
    for origin in (naive["report"]["findings"][0]["origins"][0], attached["origin"]):
        line = origin["frames"][origin["headline"]]
        assert (line["function"], line["line"]) == ("ServiceClient.qry_server_port", LEAKING_LINE), origin
    assert attached["said"].startswith(f"attached to process {attached['pid']}; one thread stood still for ")
    for ours in shown["ours"].values():
        assert ours["report"]["verdict"] == "steady"
        assert ours["report"]["findings"] == []
        assert ours["before"] == ours["after"]
        assert ours["ledger"]["equal"]
    pids = [naive["pid"], *(ours["pid"] for ours in shown["ours"].values())]
    assert [pid for pid in pids if running(pid)] == []


def test_the_demo_leaves_no_process_however_it_ends() -> None:
    with ExitStack() as stack:
        demos = {}
        for number in (signal.SIGKILL, signal.SIGINT, signal.SIGTERM):
            demo = subprocess.Popen(DEMO, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            demos[number] = stack.enter_context(demo)
            stack.callback(demo.kill)
        with ThreadPoolExecutor() as pool:  # each is looked at before its first outage
            for _ in pool.map(ends_with_all_of_its_own, demos.values(), demos):
                pass


def ends_with_all_of_its_own(demo: subprocess.Popen[str], number: signal.Signals) -> None:
    assert demo.stderr is not None
    while "both clients call" not in demo.stderr.readline():  # then all five have started
        assert demo.poll() is None
    children = children_of(demo.pid)
    recorded = [pid for child in children for pid in children_of(child)]  # the first naive client, by `leakline run`
    demo.send_signal(number)
    demo.stderr.read()
    demo.wait(10.0)
    assert (len(children), len(recorded)) == (5, 1)
    end = time.monotonic() + DEADLINE_S
    while left := [pid for pid in children + recorded if running(pid)]:
        assert time.monotonic() < end, f"still there: {left}"
        time.sleep(0.01)
    assert demo.returncode == (-number if number == signal.SIGKILL else 128 + number)


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def running(pid: int) -> bool:
    """Whether a process exists and is more than a zombie that its new parent has not collected yet."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


# --- the judgement of the outcome, which decides on the exit code


def report(verdict: str, growth: dict[str, float], *findings: dict[str, object]) -> Report:
    """A report of leakline with what the outcome looks at."""
    common = {"pid": 1, "command": "x", "seconds": 30.0, "limit": 1024, "total": 900, "highest": 900, "counts": {}}
    return msgspec.convert(
        {**common, "verdict": verdict, "growth": growth, "seconds_to_limit": None, "findings": findings}, Report
    )


def finding(identity: str, severity: str, line: str = "") -> dict[str, object]:
    frames = [{"function": line, "file": "client.py", "line": 84, "language": "python"}]
    return {"id": identity, "severity": severity, "title": "t", "count": 1, "per_second": 1.0, "evidence": {},
            "cause": "c", "remedy": "r", "origins": [{"count": 900, "frames": frames}] if line else []}  # fmt: skip


BLOCKED = "zmq.io-thread-blocked"
LEAK = report("leak", {"eventfd": 32.0}, finding(BLOCKED, "leak", "ServiceClient.qry_server_port"))
STEADY = report("steady", {})
LEDGER = Ledger(owned=7, others=("pipe:[1]",), differences=(), exact=True)
OURS = Ours("client", 2, {"eventfd": 8}, {"eventfd": 8}, answered=900, failed=0, ledger=LEDGER, report=STEADY)
NAIVE = Naive(
    pid=3, status=1, last_words="zmq.error.ZMQError: Too many open files", died_at=50.0,
    forecast=Forecast(made_at=20.0, left_s=28.0, total=100, limit=1024),
    closed_per_second=32.0, answered=99, report=LEAK,
)  # fmt: skip


def outcome(ours: Ours = OURS, naive: Naive | None = NAIVE, troubles: tuple[str, ...] = ()) -> Outcome:
    return Outcome(seconds=55.0, outages=9, first_outage_s=15.0, ours=(ours,), naive=naive, troubles=troubles)


def test_nothing_differs_when_all_is_as_it_must_be() -> None:
    assert outcome().differs() == []
    assert json.loads(outcome().to_json())["naive"]["forecast"]["off"] == round(2 / 30, 3)


def replaced(thing: Ours | Naive, **changes: object) -> Outcome:
    fields = {name: getattr(thing, name) for name in thing.__dataclass_fields__} | changes
    return outcome(ours=Ours(**fields)) if isinstance(thing, Ours) else outcome(naive=Naive(**fields))


@pytest.mark.parametrize(
    ("shown", "said"),
    [
        (replaced(OURS, report=LEAK), "our client is leak, not steady"),
        (replaced(OURS, report=report("steady", {}, finding("limit.near", "warning"))), "limit.near"),
        (replaced(OURS, report=None), "could not be observed"),
        (replaced(OURS, after={"eventfd": 9}), "9 eventfd after the outages, and had 8 eventfd before"),
        (replaced(OURS, ledger=None), "could not be read"),
        (replaced(OURS, ledger=Ledger(7, (), ("5 is open",), True)), "5 is open"),
        (replaced(OURS, ledger=Ledger(7, (), (), False)), "does not see all"),
        (replaced(NAIVE, report=STEADY), "the naive client is steady, not leak"),
        (replaced(NAIVE, report=report("leak", {"eventfd": 32.0})), "did not say why"),
        (replaced(NAIVE, report=report("leak", {"eventfd": 32.0}, finding(BLOCKED, "leak"))), "did not name the line"),
        (
            replaced(NAIVE, report=report("leak", {"eventfd": 32.0}, finding(BLOCKED, "leak", "connect"))),
            "did not name the line",
        ),
        (replaced(NAIVE, died_at=None), "did not die in time"),
        (replaced(NAIVE, last_words="killed"), "died otherwise"),
        (replaced(NAIVE, forecast=None), "did not foretell"),
        (replaced(NAIVE, died_at=60.0), "the forecast was 30 % off"),
        (replaced(NAIVE, closed_per_second=45.0), "leakline says 32.0 eventfds per second, the naive client 45.0"),
        (replaced(NAIVE, closed_per_second=None), "leakline says"),
        (outcome(naive=None), "never started"),
        (outcome(troubles=("our client had no answer",)), "had no answer"),
    ],
)
def test_whatever_differs_is_said(shown: Outcome, said: str) -> None:
    found = shown.differs()
    assert len(found) >= 1
    assert said in "; ".join(found)
    assert json.loads(shown.to_json())["ok"] is False


def test_the_naive_client_of_the_demo_is_that_of_the_casebook() -> None:
    case = NAIVE_CLIENT
    assert os.path.samefile(naive_client(), case)
