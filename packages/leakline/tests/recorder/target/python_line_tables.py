"""Runs inside each interpreter: every code object of a few sources, with the line of each of its instructions as JSON.

Up to 3.9 Python's own answer for an instruction is dis.findlinestarts (the last start at or before it); from 3.10 on
co_lines().
"""

# ruff: noqa: UP028, UP036

import binascii
import dis
import json
import sys
import types

LONG = "def jump(x):\n    a = 1\n" + "\n" * 1000 + "    b = (x\n" + "\n" * 300 + "    + a)\n    return b\n" + "\n" * 200
WIDE = "def wide():\n    return [" + ", ".join("x%d" % i for i in range(300)) + "]\n"  # noqa: UP031
FLOW = """
def flow(x):
    for a in x:
        try:
            with a as b:
                if b: continue
                yield b
        except (ValueError,
                KeyError) as error:
            raise RuntimeError from error
        finally:
            print(
                a,
                x)
    while x: x = x.next
    return [i for i in x
            if i]
"""


def codes_of(code):
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            for inner in codes_of(constant):
                yield inner


def lines_of(code):
    if sys.version_info >= (3, 10):
        return [(offset, line or 0) for start, end, line in code.co_lines() for offset in range(start, end, 2)]
    starts = list(dis.findlinestarts(code))
    found, line = [], code.co_firstlineno
    for offset in range(0, len(code.co_code), 2):
        while starts and starts[0][0] <= offset:
            line = starts.pop(0)[1]
        found.append((offset, line))
    return found


def main():
    sources = [(LONG, "long"), (WIDE, "wide"), (FLOW, "flow")]
    with open(types.__file__, "rb") as file:
        sources.append((file.read(), types.__file__))
    told = []
    for source, name in sources:
        for code in codes_of(compile(source, name, "exec")):
            table = code.co_linetable if sys.version_info >= (3, 10) else code.co_lnotab
            told.append(
                {
                    "name": code.co_name,
                    "first_line": code.co_firstlineno,
                    "lines": binascii.hexlify(table).decode(),
                    "told": lines_of(code),
                }
            )
    print(json.dumps({"version": sys.hexversion, "codes": told}))


if __name__ == "__main__":
    main()
