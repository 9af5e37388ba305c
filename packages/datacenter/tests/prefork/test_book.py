"""What is told to the watcher, to a new one, and to which worker."""

from __future__ import annotations

from datacenter.prefork import messages
from datacenter.prefork.book import Book
from datacenter.prefork.statistics import Totals
from datacenter.wire import Instance, Resolution


def register(id_: str) -> messages.Register:
    return messages.Register("shop", "rpc", Instance(id_, "tcp://127.0.0.1:1"))


def changed(version: int) -> messages.Changed:
    return messages.Changed(Resolution("redis", "rpc", "live", version))


WATCH = messages.Watch("redis", "rpc")


def test_a_registration_goes_to_the_watcher_and_its_answer_to_the_worker() -> None:
    book = Book()
    assert book.from_worker(1, register("a")) == ([register("a")], [])
    for answer in (messages.Registered("a", 5), messages.Refused("a", "busy", "no"), messages.DrainRequested("a")):
        assert book.from_watcher(answer) == [(1, answer)]
    assert book.from_watcher(messages.Registered("b", 5)) == []


def test_a_new_watcher_is_told_everything() -> None:
    book = Book()
    book.from_worker(1, register("a"))
    book.from_worker(2, register("b"))
    book.from_worker(2, WATCH)
    book.from_worker(1, messages.Unregister("a"))
    assert book.replay() == [register("b"), messages.Unregister("a"), WATCH]
    assert book.from_watcher(messages.Unregistered("a")) == [(1, messages.Unregistered("a"))]
    assert book.replay() == [register("b"), WATCH]


def test_what_a_dead_worker_had_leaves_with_it() -> None:
    book = Book()
    book.from_worker(1, register("a"))
    book.from_worker(1, WATCH)
    book.from_worker(2, WATCH)
    assert book.ended(1) == [messages.Unregister("a")]
    assert book.ended(2) == [messages.Unwatch("redis", "rpc")]
    assert book.replay() == []
    assert book.statistics() == {"instances": 0, "watched": 0, "silent": 0}


def test_a_silent_worker_leaves_the_registry_and_comes_back() -> None:
    book = Book()
    book.from_worker(1, register("a"))
    assert book.silent(1) == [messages.Unregister("a")]
    assert book.silent(1) == []
    assert book.replay() == []
    assert book.from_watcher(messages.Unregistered("a")) == []
    assert book.heard(1) == [register("a")]
    assert book.heard(1) == []
    assert book.replay() == [register("a")]


def test_a_name_is_watched_once_and_told_to_all_who_watch() -> None:
    book = Book()
    assert book.from_worker(1, WATCH) == ([WATCH], [])
    assert book.from_worker(2, WATCH) == ([], [])
    assert book.from_watcher(changed(1)) == [(1, changed(1)), (2, changed(1))]
    assert book.from_worker(3, WATCH) == ([], [(3, changed(1))])
    unwatch = messages.Unwatch("redis", "rpc")
    assert book.from_worker(1, unwatch) == ([], [])
    assert book.from_worker(1, unwatch) == ([], [])
    book.ended(2)
    assert book.from_worker(3, unwatch) == ([unwatch], [])
    assert book.from_watcher(changed(2)) == []


def test_a_worker_that_starts_is_told_the_state_of_the_session() -> None:
    book = Book()
    book.from_watcher(messages.SessionState("lost", "gone"))
    assert book.from_worker(1, messages.Started(4711)) == ([], [(1, messages.SessionState("lost", "gone"))])


def test_counts_of_the_dead_stay_in_the_sum_and_gauges_go() -> None:
    totals = Totals()
    totals.take(1, messages.Statistics({"calls": 5}, {"in_flight": 2}))
    totals.take(1, messages.Statistics({"calls": 7}, {"in_flight": 3}))
    totals.take(2, messages.Statistics({"calls": 1}, {"in_flight": 1}))
    assert totals.sums() == {"calls": 8, "in_flight": 4}
    totals.ended(1)
    assert totals.sums() == {"calls": 8, "in_flight": 1}
    assert totals.of(1) == {}
    assert totals.of(2) == {"calls": 1, "in_flight": 1}
