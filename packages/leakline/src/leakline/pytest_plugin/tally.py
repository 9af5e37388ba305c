"""How much was looked at in a session, and what of it did not count."""

from __future__ import annotations

from leakline.pytest_plugin.judgement import Verdict


class Tally:
    """What was looked at in one session, and what did not count. Of nothing but built-in types: `vars` of it travels
    from a worker of xdist to its controller.
    """

    def __init__(self) -> None:
        self.judged = 0
        self.failed = 0  # tests that failed: their tracebacks keep what they held, so they were not judged
        self.unseen = 0  # tests after which this process could not be looked at
        self.unseen_because = ""  # the last time, in words
        self.by_imports = 0
        self.cached = 0  # the first that a module keeps of a line
        self.of_fixtures = 0  # opened late, and held by a fixture of a wider scope
        self.allowed = 0
        self.unrecorded = ""  # why no line is known, in words

    @classmethod
    def received(cls, fields: dict[str, int | str]) -> Tally:
        """The tally of a worker, from its `vars`."""
        tally = cls()
        vars(tally).update(fields)
        return tally

    def count(self, verdict: Verdict) -> None:
        """One more descriptor that was judged."""
        self.by_imports += verdict == "import"
        self.cached += verdict == "cache"
        self.of_fixtures += verdict == "fixture"
        self.allowed += verdict == "allowed"

    def add(self, other: Tally) -> None:
        """What another worker looked at, too."""
        self.judged += other.judged
        self.failed += other.failed
        self.unseen += other.unseen
        self.unseen_because = self.unseen_because or other.unseen_because
        self.by_imports += other.by_imports
        self.cached += other.cached
        self.of_fixtures += other.of_fixtures
        self.allowed += other.allowed
        self.unrecorded = self.unrecorded or other.unrecorded
