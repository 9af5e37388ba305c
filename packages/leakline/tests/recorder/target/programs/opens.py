"""Opens a descriptor in several ways; prints which Python functions ran at which line each time, innermost first."""

import ctypes
import functools
import json
import os
import sys
import threading

relay = ctypes.CDLL(sys.argv[1]).relay
CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)


def open_it(way, *_):
    number, frame, names = os.open("/dev/null", os.O_RDONLY), sys._getframe(), []
    names.append(["open_it", __file__, frame.f_code.co_firstlineno + 1])
    frame = frame.f_back
    while frame is not None:
        names.append([frame.f_code.co_name, frame.f_code.co_filename, frame.f_lineno])
        frame = frame.f_back
    print(json.dumps([way, number, names]))
    return number


class Opener:
    def __init__(self):
        self.number = open_it("class")

    def __call__(self, *_):
        return open_it("call")

    def __getattr__(self, name):
        return open_it("attribute")


def generated():
    yield open_it("generator")


def through_c(number):
    return open_it("relay")


def main():
    open_it("plain")
    opener = Opener()
    opener()
    hasattr(opener, "missing")
    list(generated())
    sorted([1], key=opener)
    [open_it("list") for _ in range(1)]
    functools.partial(open_it, "partial")()
    relay(CALLBACK(through_c), 3)
    thread = threading.Thread(target=open_it, args=("thread",))
    thread.start()
    thread.join()
    print("ready", flush=True)
    sys.stdin.readline()


main()
