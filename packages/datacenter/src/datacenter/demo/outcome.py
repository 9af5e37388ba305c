"""What the demo has shown, as data, and whether it is what was to be shown. Pure: no process, no clock."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import msgspec

from leakline.facts import Origin, Recorded
from leakline.observe import Report

TOLERANCE = 0.20  # of the foretold time, and of the rate
DEATH = "Too many open files"
BLOCKED = "zmq.io-thread-blocked"
LEAKING_LINE = "qry_server_port"  # of the naive client: a socket for each question


@dataclass(frozen=True)
class Forecast:
    """What leakline foretold, and when: `made_at` on the demo's clock (seconds), `left_s` to the limit from then on."""

    made_at: float
    left_s: float
    total: int
    limit: int


@dataclass(frozen=True)
class Ledger:
    """The ledger of one process beside its /proc. `differences` is empty if they are equal, but for the `others`."""

    owned: int
    others: tuple[str, ...]
    differences: tuple[str, ...]
    exact: bool

    @property
    def equal(self) -> bool:
        """Whether the ledger is complete and every line of it true."""
        return self.exact and not self.differences


@dataclass(frozen=True)
class Ours:
    """One of our processes: descriptors by kind before and after the outages, calls, ledger, leakline."""

    name: str
    pid: int
    before: dict[str, int]
    after: dict[str, int]
    answered: int | None
    failed: int | None
    ledger: Ledger | None
    report: Report | None


@dataclass(frozen=True)
class Naive:
    """The naive client: how it ended, what was foretold, and both counts of its rate."""

    pid: int
    status: int | None
    last_words: str
    died_at: float | None
    forecast: Forecast | None
    closed_per_second: float | None
    answered: int
    report: Report | None

    @property
    def lived_s(self) -> float | None:
        """Seconds from the forecast to the death."""
        if self.forecast is None or self.died_at is None:
            return None
        return self.died_at - self.forecast.made_at

    @property
    def forecast_off(self) -> float | None:
        """How far the forecast was off, as a share of the time that was really left."""
        lived = self.lived_s
        if lived is None or self.forecast is None or lived <= 0:
            return None
        return abs(lived - self.forecast.left_s) / lived

    @property
    def eventfds_per_second(self) -> float:
        """leakline's rate."""
        return 0.0 if self.report is None else self.report.growth.get("eventfd", 0.0)

    @property
    def rate_off(self) -> float | None:
        """How far leakline's rate is from the client's own count of closed sockets, as a share of the latter."""
        if not self.closed_per_second:
            return None
        return abs(self.eventfds_per_second - self.closed_per_second) / self.closed_per_second


@dataclass(frozen=True)
class Attached:
    """What `leakline attach` said of a second naive client, which was launched without the recorder."""

    pid: int
    said: str  # on stderr
    recorded: Recorded | None

    @property
    def origin(self) -> Origin | None:
        """Of what it opened meanwhile, the line that holds most."""
        return self.recorded.alive[0].origin if self.recorded is not None and self.recorded.alive else None


@dataclass(frozen=True)
class Outcome:
    """The whole play. Times in seconds."""

    seconds: float
    outages: int
    first_outage_s: float
    ours: tuple[Ours, ...]
    naive: Naive | None
    attached: Attached | None = None
    troubles: tuple[str, ...] = field(default=())

    def differs(self) -> list[str]:
        """What is not as it must be, in words; [] if all is."""
        found = list(self.troubles)
        for process in self.ours:
            found += _differs_of_ours(process)
        found += ["the naive client was never started"] if self.naive is None else _differs_of_naive(self.naive)
        if self.attached is not None and not _is_the_line(self.attached.origin):
            found.append(f"leakline attach did not name the line in {LEAKING_LINE}(): {self.attached.said}")
        return found

    def to_json(self) -> bytes:
        """One JSON object, schema 1, without a line end."""
        differs = self.differs()
        naive = self.naive
        return msgspec.json.encode(
            {
                "schema": 1,
                "ok": not differs,
                "differs": differs,
                "seconds": round(self.seconds, 1),
                "outages": self.outages,
                "first_outage_s": round(self.first_outage_s, 1),
                "ours": {process.name: _ours_as_object(process) for process in self.ours},
                "naive": None if naive is None else _naive_as_object(naive),
                "attached": None if self.attached is None else _attached_as_object(self.attached),
            }
        )


def _differs_of_ours(ours: Ours) -> list[str]:
    found = []
    name = f"our {ours.name}"
    if ours.report is None:
        return [f"{name} could not be observed"]
    if ours.report.verdict != "steady":
        found.append(f"{name} is {ours.report.verdict}, not steady")
    grave = [finding for finding in ours.report.findings if finding.severity != "note"]
    found += [f"{name}: {finding.id}: {finding.title}" for finding in grave]
    if ours.before != ours.after:
        found.append(f"{name} has {told(ours.after)} after the outages, and had {told(ours.before)} before")
    if ours.ledger is None:
        found.append(f"the ledger of {name} could not be read")
    elif not ours.ledger.equal:
        reasons = "; ".join(ours.ledger.differences) or "it does not see all that libzmq opens"
        found.append(f"the ledger of {name} is not what /proc says: {reasons}")
    return found


def _differs_of_naive(naive: Naive) -> list[str]:
    found = []
    if naive.report is None or naive.report.verdict != "leak":
        verdict = "could not be observed" if naive.report is None else f"is {naive.report.verdict}, not leak"
        found.append(f"the naive client {verdict}")
    elif not any(finding.id == BLOCKED and finding.severity == "leak" for finding in naive.report.findings):
        found.append("leakline did not say why the naive client leaks")
    elif not _names_the_line(naive.report):
        found.append(f"leakline did not name the line in {LEAKING_LINE}() that opens what leaks")
    if naive.died_at is None:
        found.append("the naive client did not die in time")
    elif DEATH not in naive.last_words:
        found.append(f"the naive client died otherwise: status {naive.status}, {naive.last_words or 'without a word'}")
    if naive.forecast is None:
        found.append("leakline did not foretell when the naive client would die")
    elif naive.forecast_off is not None and naive.forecast_off > TOLERANCE:
        found.append(f"the forecast was {100 * naive.forecast_off:.0f} % off")
    if naive.rate_off is None or naive.rate_off > TOLERANCE:
        own = naive.closed_per_second or 0.0
        found.append(f"leakline says {naive.eventfds_per_second:.1f} eventfds per second, the naive client {own:.1f}")
    return found


def _names_the_line(report: Report) -> bool:
    origins = [origin for finding in report.findings if finding.id == BLOCKED for origin in finding.origins]
    return bool(origins) and _is_the_line(origins[0])


def _is_the_line(origin: Origin | None) -> bool:
    return origin is not None and origin.frames[origin.headline].function.endswith(LEAKING_LINE)


def _ours_as_object(ours: Ours) -> dict[str, Any]:
    ledger = None if ours.ledger is None else {"equal": ours.ledger.equal, **asdict(ours.ledger)}
    return {
        "pid": ours.pid,
        "before": ours.before,
        "after": ours.after,
        "answered": ours.answered,
        "failed": ours.failed,
        "ledger": ledger,
        "report": _report_as_object(ours.report),
    }


def _naive_as_object(naive: Naive) -> dict[str, Any]:
    foretold, lived, off = naive.forecast, naive.lived_s, naive.forecast_off
    return {
        "pid": naive.pid,
        "status": naive.status,
        "last_words": naive.last_words,
        "answered": naive.answered,
        "closed_per_second": naive.closed_per_second,
        "eventfds_per_second": naive.eventfds_per_second,
        "forecast": foretold
        and {
            "made_at_s": round(foretold.made_at, 1),
            "foretold_s": round(foretold.left_s, 1),
            "lived_s": None if lived is None else round(lived, 1),
            "off": None if off is None else round(off, 3),
        },
        "report": _report_as_object(naive.report),
    }


def _attached_as_object(attached: Attached) -> dict[str, Any]:
    return {"pid": attached.pid, "said": attached.said, "origin": attached.origin}


def _report_as_object(report: Report | None) -> msgspec.Raw | None:
    return None if report is None else msgspec.Raw(report.to_json())


def told(counts: dict[str, int]) -> str:
    """`7 eventfd, 3 epoll, 2 tcp`: the most first."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count} {kind}" for kind, count in ordered) or "none"
