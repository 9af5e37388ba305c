"""Opens descriptors from Python code in many ways and prints where, as JSON. Runs under the recorder."""

# ruff: noqa: UP004

import json
import os
import socket
import sys
import threading

opened = []


def stack(frame):
    found = []
    while frame is not None:
        code = frame.f_code
        found.append((getattr(code, "co_qualname", code.co_name), code.co_filename, frame.f_lineno))
        frame = frame.f_back
    return found


def open_one():
    for how in (lambda: os.dup(0), lambda: os.open(os.devnull, os.O_RDONLY), lambda: socket.socket().detach()):
        said, number = stack(sys._getframe()), how()
        opened.append((number, said))


class Holder(object):
    def method(self):
        open_one()

    def __del__(self):
        open_one()


def generator():
    open_one()
    yield 1


def main():
    Holder().method()
    list(generator())
    sorted([1], key=lambda value: open_one())
    thread = threading.Thread(target=open_one)
    thread.start()
    thread.join()
    exec("def made():\n    open_one()\nmade()", {"open_one": open_one})


open_one()
main()
print(json.dumps(opened))
sys.stdout.flush()
sys.stdin.read()
