"""`python -m casebook [NAME …]`: plays the casebook, all of it or the cases whose names begin so, and prints one table.

Ends with 1 if leakline missed a finding, named another line, or found anything in a program put right; with 2 if there
is no such case. `--show` prints instead what a user reads of each broken program (and of the fixed one: `--fixed`).
"""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor

from casebook.runner.expectation import Case, Look, cases
from casebook.runner.looking import Result, looked_at, play
from casebook.runner.table import render

AT_ONCE = 2  # most of the time of a look is waiting


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m casebook", description="Play the casebook.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="beginnings of names of cases; none: all")
    parser.add_argument("--how", choices=("launched", "observed", "attached", "ended"), help="only looks of this sort")
    parser.add_argument("--program", help="only looks at this program")
    parser.add_argument("--show", action="store_true", help="print leakline's report as its user reads it")
    parser.add_argument("--fixed", action="store_true", help="with --show: of the fixed programs")
    words = parser.parse_args()
    try:
        chosen = cases(*words.names)
    except ValueError as error:
        print(f"casebook: {error}", file=sys.stderr)
        return 2
    looks = [
        (case, look)
        for case in chosen
        for look in case.look
        if words.how in (None, look.how) and words.program in (None, look.program)
    ]
    if words.show:
        for case, look in looks:
            _show(case, look, look.fixed if words.fixed else look.program)
        return 0
    with ThreadPoolExecutor(AT_ONCE) as pool:
        results = list(pool.map(_played, looks))
    print(render(results))
    return 0 if all(result.right for result in results) else 1


def _played(scene: tuple[Case, Look]) -> Result:
    case, look = scene
    result = play(case, look)
    print(f"{'as expected' if result.right else 'AMISS'}: {case.name}/{look.program} ({look.how})", file=sys.stderr)
    return result


def _show(case: Case, look: Look, program: str) -> None:
    report, _ = looked_at(case, look, program, as_json=False)
    print(f"--- {case.name}/{program}, {look.how}\n\n{report}\n", flush=True)


if __name__ == "__main__":
    sys.exit(main())
