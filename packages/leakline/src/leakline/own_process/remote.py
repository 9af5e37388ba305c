"""The look of `inside` in another Python process: 3.14 and later let one be asked to run a script (sys.remote_exec).

The script carries the four modules that are needed as text, as leakline need not be installed there; it leaves nothing
behind in the process, and hands its answer over in a file.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

import msgspec

from leakline.errors import LeaklineError, NotPermittedError, UnsupportedError
from leakline.facts import PythonHolder, PythonHolders
from leakline.own_process.inside import held

TIMEOUT_S = 10.0  # a process that runs no Python code meanwhile (it waits in C) does not answer
_MODULES = ("owners", "chain", "holding", "inside")
_SCRIPT = """
def leakline_looks(sources, numbers, place):
    import json, os, sys, types
    before = {name: sys.modules.get(name) for name in sources}
    try:
        for name, source in sources.items():
            module = sys.modules[name] = types.ModuleType(name)
            exec(compile(source, name, "exec"), module.__dict__)
        answer = sys.modules["leakline.own_process.inside"].held(numbers)
    except Exception as error:
        answer = repr(error)
    finally:
        for name, module in before.items():
            if module is None:
                sys.modules.pop(name, None)
            else:
                sys.modules[name] = module
    with open(place + ".part", "w") as file:
        json.dump(answer, file)
    os.replace(place + ".part", place)
"""


def own_holders(numbers: Collection[int]) -> PythonHolders:
    """What keeps these descriptors of this very process."""
    return _holders(*held(numbers))


def holders_in(pid: int, numbers: Collection[int], timeout_s: float = TIMEOUT_S) -> PythonHolders:
    """What keeps these descriptors of another process, which runs the look at its next safe point: 10 to 100 ms of it.

    Raises UnsupportedError (this Python or that one is older than 3.14, or they differ, or it does not come to run
    Python code in time), NotPermittedError, and LeaklineError when the look itself fails.
    """
    run = getattr(sys, "remote_exec", None)
    if run is None:
        raise UnsupportedError(
            f"objects of process {pid} can be looked at by Python 3.14 or later only; this is {sys.version.split()[0]}",
            "run leakline with the Python that runs the process; or use leakline.diagnose() or pytest --leakline in it",
        )
    folder = Path(tempfile.mkdtemp(prefix="leakline-"))
    program, place = folder / "look.py", folder / "answer.json"
    program.write_text(script(numbers, str(place)), encoding="utf-8")
    try:
        run(pid, str(program))
    except PermissionError as error:
        _remove(folder)
        raise NotPermittedError(f"process {pid} may not be asked: {error}", "run it as root: sudo …") from error
    except (OSError, RuntimeError, ValueError) as error:
        _remove(folder)
        raise UnsupportedError(
            f"process {pid} cannot be asked: {error}", "it must run the same Python, 3.14+"
        ) from error
    until = time.monotonic() + timeout_s
    while not place.exists():
        if time.monotonic() > until:
            program.write_text("", encoding="utf-8")  # it may still come to run it, and would complain if it were gone
            raise UnsupportedError(
                f"process {pid} ran no Python code for {timeout_s:g} s", "try again when it is active"
            )
        time.sleep(0.005)
    answer = json.loads(place.read_text(encoding="utf-8"))
    _remove(folder)
    if isinstance(answer, str):
        raise LeaklineError(f"the look at the objects of process {pid} failed: {answer}", "please report this")
    return _holders(*answer)


def script(numbers: Collection[int], place: str) -> str:
    """The program that writes to `place` what keeps these descriptors of the process that runs it."""
    folder = Path(__file__).parent
    sources = {f"{__package__}.{name}": (folder / f"{name}.py").read_text(encoding="utf-8") for name in _MODULES}
    call = f"leakline_looks({sources!r}, {sorted(numbers)!r}, {place!r})\ndel leakline_looks\n"
    return f"{_SCRIPT}\n{call}"


def _holders(told: list[dict[str, object]], incomplete: list[str]) -> PythonHolders:
    known = [msgspec.convert(each, PythonHolder) for each in told if each["state"] != "unknown"]
    return PythonHolders(at=time.monotonic(), holders=tuple(known), incomplete=tuple(incomplete))


def _remove(folder: Path) -> None:
    with suppress(OSError):
        for each in folder.iterdir():
            each.unlink()
        folder.rmdir()
