"""Four threads make code objects, run each once, which asks for its own name, and drop them; signals interrupt them.

Prints JSON. Arguments: seconds, microseconds of CPU time between two signals (0: none).
"""

# ruff: noqa: B905, RUF005, RUF007, UP004, UP031, UP036

import ctypes
import functools
import json
import sys
import threading
import time
import types

import python_probe

library = python_probe.detached
counts = {"made": 0, "wrong": 0, "unknown": 0, "same_addresses": 0}
examples = []


def template(ask):
    return ask()


def renamed(file, name):
    code = template.__code__
    if sys.version_info >= (3, 11):
        return code.replace(co_filename=file, co_name=name, co_qualname=name)
    if sys.version_info >= (3, 8):
        return code.replace(co_filename=file, co_name=name)
    fields = ["argcount", "kwonlyargcount", "nlocals", "stacksize", "flags", "code", "consts", "names", "varnames"]
    values = [getattr(code, "co_" + field) for field in fields]
    return types.CodeType(*(values + [file, name, code.co_firstlineno, code.co_lnotab]))


def make_and_run(offset, until):
    """The next code object takes the memory of the one before, so that nearly always all of its addresses are the same.

    File and name have different sizes, or they would swap their places each time.
    """
    made = wrong = unknown = same = 0
    before = None
    text = ctypes.create_string_buffer(200)
    ask = functools.partial(library.innermost, text, 200)  # has no Python frame of its own
    number = offset
    while time.time() < until:
        number = (number + 4) % 1000000
        code = renamed("<file in a folder of its own %06d>" % number, "f_%06d" % number)
        size = types.FunctionType(code, {})(ask)
        told = text.raw[: max(size, 0)].decode()
        if size < 0:
            unknown += 1
        elif told != code.co_filename + ":" + code.co_name:
            wrong += 1
            examples.append((told, code.co_name))
        addresses = hash((id(code), id(code.co_filename), id(code.co_name)))
        same += addresses == before
        before = addresses
        made += 1
        del code
    for key, value in (("made", made), ("wrong", wrong), ("unknown", unknown), ("same_addresses", same)):
        counts[key] += value


def step_a(depth):
    return step_b(depth - 1) if depth else 0


def step_b(depth):
    return step_c(depth - 1) if depth else 0


def step_c(depth):
    total = sum([Item(i).held_value for i in range(3)])
    return (step_a(depth - 1) if depth else 0) + total


class Item(object):
    def __init__(self, value):
        self.held = value

    @property
    def held_value(self):
        return self.held


# No other function has these names, and none but these calls them.
CALLERS = {
    "step_a": {"step_c", "turn"},
    "step_b": {"step_a"},
    "step_c": {"step_b"},
    "held_value": {"step_c", "<listcomp>"},
    "turn": {"main"},
    "make_and_run": {"run"},
}


def turn():
    return step_a(11)


def judge():
    """Of each interrupted walk: each frame's caller is one that calls it."""
    count = ctypes.c_int()
    library.interruptions.restype = ctypes.POINTER(python_probe.Origin)
    origins = library.interruptions(ctypes.byref(count))
    broken = wrong = deep = 0
    names = {}
    for origin in origins[: count.value]:
        broken += bool(origin.flags & 8)
        frames = origin.python[: origin.python_count]
        for frame in frames:
            if frame.code and frame.code not in names:
                names[frame.code] = python_probe.described(frame)["name"].split(".")[-1]
        chain = [names.get(frame.code) for frame in frames]
        deep += len(chain) > 3
        for inner, outer in zip(chain, chain[1:]):
            if inner in CALLERS and outer is not None and outer not in CALLERS[inner]:
                wrong += 1
                examples.append((inner, outer))
    return {"walks": count.value, "broken": broken, "wrong": wrong, "deep": deep}


def main():
    seconds, interval = float(sys.argv[1]), int(sys.argv[2])
    until = time.time() + seconds
    threads = [threading.Thread(target=make_and_run, args=(i, until)) for i in range(4)]
    if interval:
        library.arm(interval)
    for thread in threads:
        thread.start()
    while time.time() < until:
        turn()
    for thread in threads:
        thread.join()
    library.arm(0)
    print(json.dumps({"made": counts, "signals": judge(), "examples": examples[:5]}))


if __name__ == "__main__":
    main()
