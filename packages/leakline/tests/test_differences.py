"""What came and went between looks, on snapshots written down by hand."""

from __future__ import annotations

from leakline.differences import Looks, residue
from leakline.facts import Descriptor, Snapshot


def look(at: float, *descriptors: tuple[int, str]) -> Snapshot:
    return Snapshot(1, "program", at, tuple(Descriptor(number, "file", target) for number, target in descriptors), None)


def test_opened_closed_and_both() -> None:
    looks = Looks(look(0.0, (3, "/a"), (4, "/b")))
    looks.add(look(0.1, (3, "/a"), (4, "/b"), (5, "/short"), (6, "/kept")))
    looks.add(look(0.2, (3, "/a"), (6, "/kept")))
    found = looks.difference()
    assert [(group.peer, group.numbers) for group in found.opened] == [("/kept", (6,))]
    assert [(group.peer, group.numbers) for group in found.opened_and_closed] == [("/short", (5,))]
    assert [(group.peer, group.numbers) for group in found.closed] == [("/b", (4,))]
    assert (found.looks, found.seconds) == (3, 0.2)


def test_a_number_that_was_given_out_again_is_another_descriptor() -> None:
    looks = Looks(look(0.0, (3, "socket:[100]")))
    looks.add(look(0.1, (3, "socket:[101]")))
    found = looks.difference()
    assert len(found.opened) == len(found.closed) == 1


def test_the_residue_is_what_every_round_leaves() -> None:
    rounds = []
    for number, extra in enumerate(("/log", "/cache", "/log")):
        looks = Looks(look(0.0))
        looks.add(look(1.0, (number * 3 + 3, "/leak"), (number * 3 + 4, "/leak"), (number * 3 + 5, extra)))
        rounds.append(looks.difference())
    (left,) = residue(rounds)
    assert (left.kind, left.peer, left.each) == ("file", "/leak", 2)
    assert residue([]) == ()
