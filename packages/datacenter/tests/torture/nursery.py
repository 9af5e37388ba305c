"""Plays cases one after the other, with the injector preloaded: a line of JSON in, a line of JSON out.

Arguments: a folder for its files. It never opens anything of datacenter itself: it only forks those who do.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path += [str(HERE), str(HERE.parent / "broker")]

import relay_peers  # noqa: E402, F401 - so that no case imports it
from control import Control  # noqa: E402
from phases import PHASES, Case, Peers, free_port, play  # noqa: E402

from datacenter.commands import main as datacenter_main  # noqa: E402
from processes import InChildError  # noqa: E402


def warm_up() -> None:
    """Imports what the command line imports at its first use: what fails in an import fails in Python's own code."""
    import uvloop  # noqa: F401

    sys.argv = ["datacenter", "up", "--help"]
    with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing), contextlib.suppress(SystemExit):
        datacenter_main()


def serve(folder: Path) -> None:
    warm_up()
    control = Control(Path(os.environ["TORTURE_CONTROL"]))
    peers = Peers(folder, free_port())
    try:
        for line in sys.stdin:
            asked = json.loads(line)
            assert asked["phase"] in PHASES
            case = Case(control, folder, peers, for_good=asked["for_good"])
            report = play(asked["phase"], case, asked["at"], asked["error"])
            print(json.dumps(dataclasses.asdict(report)), flush=True)
    except InChildError:
        raise
    except BaseException:
        peers.close()
        raise
    peers.close()


if __name__ == "__main__":
    program = None
    try:
        serve(Path(sys.argv[1]))
    except InChildError as child:
        program = child.program
    if program is not None:
        program()
