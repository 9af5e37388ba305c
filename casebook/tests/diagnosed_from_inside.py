"""Plays a program of the casebook in a thread of this process, which then diagnoses itself; prints the report as JSON.

python diagnosed_from_inside.py MODULE
"""

from __future__ import annotations

import importlib
import os
import sys
import threading
import time

import leakline

WARM_UP_S, SECONDS = 1.0, 5.0


def main() -> None:
    threading.Thread(target=importlib.import_module(sys.argv[1]).main, daemon=True).start()
    time.sleep(WARM_UP_S)
    report = leakline.diagnose(seconds=SECONDS)
    os.write(1, report.to_json() + b"\n")
    os._exit(0)  # the program goes on for minutes


if __name__ == "__main__":
    main()
