"""The look of `inside` in another Python process, which is asked to run it (remote_exec.py).

The script carries the four modules that are needed as text, as leakline need not be installed there; it leaves nothing
behind in the process, and hands its answer over in a file.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Collection
from pathlib import Path

import msgspec

from leakline import remote_exec
from leakline.errors import LeaklineError, UnsupportedError
from leakline.facts import PythonHolder, PythonHolders
from leakline.own_process.inside import held

TIMEOUT_S = 10.0  # a process that runs no Python code meanwhile (it waits in C) does not answer
_MODULES = ("owners", "chain", "holding", "inside")
_SCRIPT = """
def leakline_answer():
    import sys, types
    sources, numbers = {sources!r}, {numbers!r}
    before = {{name: sys.modules.get(name) for name in sources}}
    try:
        for name, source in sources.items():
            module = sys.modules[name] = types.ModuleType(name)
            exec(compile(source, name, "exec"), module.__dict__)
        return sys.modules["leakline.own_process.inside"].held(numbers)
    except Exception as error:
        return repr(error)
    finally:
        for name, module in before.items():
            if module is None:
                sys.modules.pop(name, None)
            else:
                sys.modules[name] = module
"""


def own_holders(numbers: Collection[int]) -> PythonHolders:
    """What keeps these descriptors of this very process."""
    return _holders(*held(numbers))


def check_can_ask(pid: int) -> None:
    """Raises UnsupportedError where this Python cannot ask another process anything."""
    if not remote_exec.possible():
        raise UnsupportedError(
            f"objects of process {pid} can be looked at by Python 3.14 or later only; this is {sys.version.split()[0]}",
            "run leakline with the Python that runs the process; or use leakline.diagnose() or pytest --leakline in it",
        )


def holders_in(pid: int, numbers: Collection[int], timeout_s: float = TIMEOUT_S) -> PythonHolders:
    """What keeps these descriptors of another process, which runs the look at its next safe point: 10 to 100 ms of it.

    Raises UnsupportedError (this Python or that one is older than 3.14, or they differ, or it does not come to run
    Python code in time), NotPermittedError, and LeaklineError when the look itself fails.
    """
    check_can_ask(pid)
    answer = remote_exec.run_in(pid, script(numbers), timeout_s)
    if isinstance(answer, str):
        raise LeaklineError(f"the look at the objects of process {pid} failed: {answer}", "please report this")
    return _holders(*answer)


def script(numbers: Collection[int]) -> str:
    """The program that answers what keeps these descriptors of the process that runs it."""
    folder = Path(__file__).parent
    sources = {f"{__package__}.{name}": (folder / f"{name}.py").read_text(encoding="utf-8") for name in _MODULES}
    return _SCRIPT.format(sources=sources, numbers=sorted(numbers))


def _holders(told: list[dict[str, object]], incomplete: list[str]) -> PythonHolders:
    known = [msgspec.convert(each, PythonHolder) for each in told if each["state"] != "unknown"]
    return PythonHolders(at=time.monotonic(), holders=tuple(known), incomplete=tuple(incomplete))
