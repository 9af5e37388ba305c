"""The rules on facts written down by hand: what sets each off, and what does not. No process, no clock."""

from __future__ import annotations

import msgspec
import pytest

from leakline.facts import Address, Descriptor, Limits, Role, Sample, Snapshot, Socket, Thread
from leakline.figures import rate_text
from leakline.growth import judge
from leakline.rules import RULES, diagnose
from leakline.rules.observed import Observed
from leakline.rules.standstill import Standstill, StandstillWatch, is_blocked, role_of, roles_of

BLOCKED = Standstill(11, "ZMQbg/IO/0", "io", 6.0, "poll_schedule_timeout.constprop.0", 42, 60)


def socket(number: int, state: str | None, role: Role = "outgoing") -> Descriptor:
    remote = Address("10.0.0.7", 5432) if state else None
    return Descriptor(
        number, "tcp", f"socket:[{number}]", socket=Socket("tcp", role, state, Address("127.0.0.1", 1), remote)
    )


def observed(
    eventfds_per_second: float = 0.0,
    base: int = 10,
    limit: int | None = 1024,
    descriptors: tuple[Descriptor, ...] = (),
    threads: tuple[Standstill, ...] = (),
    libraries: tuple[str, ...] = (),
    seconds: float = 10.0,
) -> Observed:
    """A process with `base` eventfds and more of them per second, and two epolls."""
    samples = []
    for index in range(int(seconds * 10) + 1):
        counts = {"eventfd": base + int(index / 10 * eventfds_per_second), "epoll": 2}
        samples.append(Sample(index / 10, sum(counts.values()), counts))
    limits = None if limit is None else Limits(limit, limit)
    begin = Snapshot(1, "program", 0.0, descriptors, limits, libraries=libraries)
    end = msgspec.structs.replace(begin, at=seconds)
    return Observed(1, judge(samples, limit), samples[-1].kinds or {}, begin, end, threads)


def ids(facts: Observed) -> list[str]:
    return [finding.id for finding in diagnose(facts)]


def test_a_quiet_process_has_no_finding() -> None:
    assert ids(observed()) == []


def test_growth_alone() -> None:
    assert ids(observed(20.0)) == ["growth.eventfd"]


def test_a_blocked_io_thread_and_eventfds_are_one_finding() -> None:
    (finding,) = diagnose(observed(20.0, threads=(BLOCKED,)))
    assert finding.id == "zmq.io-thread-blocked"
    assert finding.severity == "leak"
    assert finding.per_second == pytest.approx(20.0, rel=0.02)
    assert finding.evidence["seconds_to_limit"] == pytest.approx((1024 - 212) / 20, rel=0.02)


def test_the_slots_of_a_context_run_out_before_a_high_limit() -> None:
    (finding,) = diagnose(observed(20.0, limit=20000, threads=(BLOCKED,)))
    assert finding.evidence["seconds_to_default_max_sockets"] == pytest.approx((1023 - 210) / 20, rel=0.02)


def test_a_blocked_thread_without_growth_is_a_warning() -> None:
    (finding,) = diagnose(observed(threads=(BLOCKED,)))
    assert (finding.id, finding.severity) == ("zmq.io-thread-blocked", "warning")


def test_a_blocked_reaper_and_io_thread_are_two_findings_that_tell_the_eventfds_once() -> None:
    reaper = Standstill(10, "ZMQbg/Reaper", "reaper", 5.0, "do_poll", 7, 60)
    findings = diagnose(observed(20.0, threads=(BLOCKED, reaper)))
    assert [(finding.id, finding.severity) for finding in findings] == [
        ("zmq.io-thread-blocked", "leak"),
        ("zmq.reaper-blocked", "warning"),
    ]


def test_a_libzmq_that_polls_without_epoll_is_healthy() -> None:
    facts = observed(threads=(BLOCKED,))
    counts = {kind: count for kind, count in facts.counts.items() if kind != "epoll"}
    assert ids(msgspec.structs.replace(facts, counts=counts)) == []


def test_a_short_standstill_is_no_finding() -> None:
    assert ids(observed(threads=(msgspec.structs.replace(BLOCKED, seconds=0.5),))) == []


@pytest.mark.parametrize("eventfds", [900, 1100])
def test_other_numbers_of_eventfds_are_no_full_context(eventfds: int) -> None:
    assert ids(observed(base=eventfds, limit=20000, libraries=("libzmq.so.5",))) == []


def test_a_full_context() -> None:
    assert ids(observed(base=1026, limit=20000, libraries=("libzmq.so.5",))) == ["zmq.max-sockets"]
    assert ids(observed(base=1026, limit=20000)) == []
    assert ids(observed(base=1026, limit=1100, libraries=("libzmq.so.5",))) == ["limit.near"]


def test_close_wait_needs_many_that_last() -> None:
    many = tuple(socket(number, "CLOSE_WAIT") for number in range(10))
    assert ids(observed(descriptors=many)) == ["tcp.close-wait"]
    assert ids(observed(descriptors=many[:9])) == []
    assert ids(observed(descriptors=tuple(socket(number, "ESTABLISHED") for number in range(50)))) == []
    facts = observed(descriptors=many)
    others = tuple(socket(number, "CLOSE_WAIT") for number in range(100, 110))
    assert facts.end is not None
    assert ids(msgspec.structs.replace(facts, end=msgspec.structs.replace(facts.end, descriptors=others))) == []


def test_never_bound_needs_many() -> None:
    many = tuple(socket(number, None, "never-bound") for number in range(10))
    assert ids(observed(descriptors=many)) == ["socket.never-bound"]
    assert ids(observed(descriptors=many[:9])) == []


def test_unix_datagram_sockets_that_only_send_are_in_use() -> None:
    senders = tuple(
        Descriptor(number, "unix", f"socket:[{number}]", socket=Socket("unix-dgram", "never-bound", "UNCONNECTED"))
        for number in range(20)
    )
    assert ids(observed(descriptors=senders)) == []


@pytest.mark.parametrize(
    ("state", "role", "identity"),
    [(None, "never-bound", "socket.never-bound"), ("CLOSE_WAIT", "accepted", "tcp.close-wait")],
)
def test_growth_by_sockets_in_a_bad_state_is_one_finding(state: str | None, role: Role, identity: str) -> None:
    facts = observed(seconds=10.0)
    samples = [Sample(index / 10, 12 + 2 * index, {"tcp": 12 + 2 * index}) for index in range(101)]
    before = tuple(socket(number, state, role) for number in range(12))
    after = before + tuple(socket(number, state, role) for number in range(12, 212))
    assert facts.begin is not None
    assert facts.end is not None
    facts = msgspec.structs.replace(
        facts,
        growth=judge(samples, 1024),
        counts={"tcp": 212},
        begin=msgspec.structs.replace(facts.begin, descriptors=before),
        end=msgspec.structs.replace(facts.end, descriptors=after),
    )
    (finding,) = diagnose(facts)
    assert (finding.id, finding.severity) == (identity, "leak")
    assert finding.per_second == pytest.approx(20.0, rel=0.02)
    assert finding.evidence["seconds_to_limit"] == pytest.approx((1024 - 212) / 20, rel=0.02)
    healthy = tuple(socket(number, "ESTABLISHED") for number in range(1000, 1300))
    mixed = msgspec.structs.replace(facts.end, descriptors=after + healthy) if facts.end else None
    assert ids(msgspec.structs.replace(facts, end=mixed)) == ["tcp.outgoing-piling-up", identity]


def test_figures_in_titles_keep_their_commas() -> None:
    (finding,) = diagnose(observed(base=1020, limit=1030))
    assert finding.title == "1 022 of 1 030 descriptors in use, 8 left"


def test_sockets_of_another_namespace_are_told() -> None:
    facts = observed()
    assert facts.end is not None
    end = msgspec.structs.replace(facts.end, unreadable=("state and addresses of 3 sockets: …",))
    assert ids(msgspec.structs.replace(facts, end=end)) == ["observe.unreadable"]


def test_too_little_seen_is_a_note_with_the_command_to_type() -> None:
    (finding,) = diagnose(observed(0.15))
    assert (finding.id, finding.severity) == ("growth.undecided", "note")
    assert finding.next.startswith("leakline 1 --for")
    ended = diagnose(msgspec.structs.replace(observed(0.15), ended=True))
    assert [each.id for each in ended] == ["growth.undecided", "observe.ended"]
    assert not [each for each in ended if "leakline 1 " in each.next]


def test_every_finding_says_from_when_on_when_not_and_what_to_type_next() -> None:
    facts = observed(20.0, descriptors=tuple(socket(number, "CLOSE_WAIT") for number in range(10)), threads=(BLOCKED,))
    for finding in diagnose(facts):
        assert finding.next.startswith("leakline ")
        assert finding.threshold
        assert finding.harmless
        assert finding.cause.endswith(".")
        assert finding.remedy.endswith(".")


def test_every_rule_is_pure() -> None:
    facts = observed(20.0, threads=(BLOCKED,))
    assert [rule(facts) for rule in RULES] == [rule(facts) for rule in RULES]


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("ZMQbg/IO/0", "io"),
        ("ZMQbg/Reaper", "reaper"),
        ("web/ZMQbg/IO/1", "io"),
        ("web/ZMQbg/Reape", "reaper"),
        ("gateway/ZMQbg/I", "io"),
        ("gateway1/ZMQbg/", "unknown"),
        ("application/ZMQ", "unknown"),
        ("python3", None),
        ("kworker/0:1", None),
        ("a/Z", None),
        ("", None),
    ],
)
def test_roles_of_threads_also_when_the_name_is_cut_or_prefixed(name: str, role: str | None) -> None:
    assert role_of(name) == role


@pytest.mark.parametrize(
    ("state", "channel", "blocked"),
    [
        ("S", "poll_schedule_timeout.constprop.0", True),
        ("S", "do_sys_poll", True),
        ("S", "do_ppoll", True),
        ("S", "futex_wait_queue", True),
        ("S", "ep_poll", False),
        ("S", "do_epoll_wait", False),
        ("S", None, False),
        ("R", "do_sys_poll", False),
    ],
)
def test_where_a_thread_may_sleep(state: str, channel: str | None, blocked: bool) -> None:
    assert is_blocked(Thread(1, "ZMQbg/IO/0", state, channel, 5)) is blocked


def test_a_standstill_begins_anew_when_the_thread_moves() -> None:
    def thread(switches: int, channel: str = "do_sys_poll") -> Thread:
        return Thread(1, "ZMQbg/IO/0", "S", channel, switches)

    watch = StandstillWatch(0.0, thread(5))
    watch.add(2.0, thread(5))
    assert watch.seen("io").seconds == 2.0
    watch.add(3.0, thread(6))
    watch.add(4.0, thread(6))
    assert watch.seen("io").seconds == 1.0
    watch.add(5.0, thread(7, "ep_poll"))
    assert watch.seen("io").seconds == 0.0
    watch.add(6.0, thread(7))
    watch.add(7.5, thread(7))
    assert watch.seen("io").seconds == 1.5


@pytest.mark.parametrize(
    ("rate", "text"),
    [
        (97.4, "97 per second"),
        (4.21, "4.2 per second"),
        (0.3, "18 per minute"),
        (0.02, "1.2 per minute"),
        (0.001, "3.6 per hour"),
        (1e-6, "0.0 per hour"),
    ],
)
def test_rates_are_told_in_a_unit_that_fits(rate: float, text: str) -> None:
    assert rate_text(rate) == text


def test_threads_without_names_are_known_by_the_signals_that_they_block() -> None:
    def thread(tid: int, name: str = "client", deaf: bool = True) -> Thread:
        return Thread(tid, name, "S", "do_epoll_wait", 1, deaf=deaf)

    threads = [thread(7, deaf=False), thread(8), thread(9), thread(12, deaf=False), thread(13), thread(14)]
    assert roles_of(threads, uses_libzmq=True) == {8: "reaper", 9: "io", 13: "reaper", 14: "io"}
    assert roles_of(threads, uses_libzmq=False) == {}
    assert set(roles_of(threads[:5], uses_libzmq=True).values()) == {"unknown"}  # nobody knows which is missing
    assert roles_of([*threads, thread(20, "ZMQbg/IO/0")], uses_libzmq=True) == {20: "io"}


def test_the_mailboxes_of_an_old_libzmq_are_socket_pairs() -> None:
    samples = tuple(Sample(t / 10, 10 + 4 * t, {"unix": 8 + 4 * t, "epoll": 2}) for t in range(101))
    facts = observed(threads=(BLOCKED,))
    facts = msgspec.structs.replace(facts, growth=judge(samples, 4096), counts={"unix": 408, "epoll": 2})
    (finding,) = diagnose(facts)
    assert finding.id == "zmq.io-thread-blocked"
    assert finding.severity == "leak"
    assert "its socket pairs leak beside it: 40 per second" in finding.title
