"""Records how the descriptors of real programs went, into this folder: `python record.py [NAME …] [--for 40s]`.

The healthy ones are those of `tests/hold/healthy.py`, under their loads; the others leak. A file is a table with blanks
between: milliseconds, and the count of each kind that its first line names; a row where a count moved, and the last.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "hold"))

from healthy import PROGRAMS  # noqa: E402
from healthy_scene import Scene  # noqa: E402

from leakline.durations import seconds_of  # noqa: E402
from leakline.facts import Sample  # noqa: E402
from leakline.observe import Observation  # noqa: E402

HEALTHY = ("redis", "nginx", "postgres", "java", "node", "gunicorn", "asyncio", "threads", "datacenter")
TARGETS = HERE.parent / "targets.py"
RULES = HERE.parent / "rules" / "programs.py"
LEAKING = {
    "leak-zmq-monitor": (TARGETS, "zmq_client", "undrained"),
    "leak-accepted": (RULES, "accepted_not_closed"),
    "leak-pipes-of-children": (RULES, "pipes_of_dead_children"),
    "leak-deleted-logs": (RULES, "deleted_logs"),
}


def table(samples: Sequence[Sample]) -> str:
    """The samples that have kinds, as text."""
    seen = [sample for sample in samples if sample.kinds is not None]
    kinds = sorted({kind for sample in seen for kind in sample.kinds or ()})
    rows = [f"ms {' '.join(kinds)}"]
    last: list[int] = []
    for index, sample in enumerate(seen):
        counts = [(sample.kinds or {}).get(kind, 0) for kind in kinds]
        if counts != last or index == len(seen) - 1:
            rows.append(f"{(sample.at - seen[0].at) * 1000:.0f} {' '.join(map(str, counts))}")
        last = counts
    return "\n".join(rows) + "\n"


def watch(pids: dict[str, int], seconds: float) -> dict[str, str]:
    observations = {name: Observation(pid, window=seconds + 60) for name, pid in pids.items()}
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for observation in observations.values():
            observation.step()
        time.sleep(0.03)
    return {name: table(observation.samples()) for name, observation in observations.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("programs", nargs="*", metavar="NAME")
    parser.add_argument("--for", dest="duration", default="40s")
    options = parser.parse_args()
    names = options.programs or [*HEALTHY, *LEAKING]
    scenes, leaking, pids = [], [], {}
    with tempfile.TemporaryDirectory(prefix="leakline-series-") as folder:
        Path(folder).chmod(0o755)
        try:
            for name in names:
                if name in LEAKING:
                    words = [sys.executable, *map(str, LEAKING[name])]
                    leaking.append(subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
                    leaking[-1].stdout.readline()  # type: ignore[union-attr]
                    pids[name] = leaking[-1].pid
                    continue
                (Path(folder) / name).mkdir(mode=0o755)
                scenes.append(Scene(Path(folder) / name))
                begun = PROGRAMS[name].begin(scenes[-1])
                pids[name] = next(iter(begun.values()))
            for name, text in watch(pids, seconds_of(options.duration)).items():
                (HERE / f"{name}.txt").write_text(text)
                print(f"{name}: {len(text.splitlines()) - 1} rows")
        finally:
            for scene in scenes:
                scene.end()
            for process in leaking:
                process.kill()


if __name__ == "__main__":
    main()
