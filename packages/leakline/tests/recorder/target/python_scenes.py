"""The ways in which Python code comes to open a descriptor, each ending in `check`. Prints JSON at its end.

Run by each interpreter, also by those that ruff does not know any more.
"""

# ruff: noqa: B035, C400, C417, UP004, UP036

import functools
import json
import sys
import threading

import python_probe
from python_probe import check


def nested(depth):
    return nested(depth - 1) if depth else check("nested")


class Kind(object):
    def method(self):
        return check("method")

    @classmethod
    def of_class(cls):
        return check("class method")

    @property
    def read(self):
        return check("property")

    def __call__(self, *_):
        return check("call")

    def __del__(self):
        check("del")

    def __enter__(self):
        check("enter")
        return self

    def __exit__(self, *_):
        check("exit")


class Made(object):
    def __init__(self):
        check("init")


def generator():
    yield check("generator")
    for _ in inner_generator():
        yield check("outer generator")


def inner_generator():
    yield check("inner generator")


def in_thread():
    done = []
    thread = threading.Thread(target=lambda: done.append(check("thread")))
    thread.start()
    thread.join()


def plain():
    nested(3)
    kind = Kind()
    kind.method(), Kind.of_class(), kind.read, kind(1)
    with kind:
        pass
    (lambda: check("lambda"))()
    [check("list comprehension") for _ in (1, 2)]
    {check("set comprehension") for _ in (1,)}
    {1: check("dict comprehension") for _ in (1,)}
    list(check("generator expression") for _ in (1, 2))
    for _ in range(20):
        Made()
        list(generator())  # often enough that 3.11+ specialises it
        for _ in generator():
            pass
    try:
        raise ValueError
    except ValueError:
        check("except")
    finally:
        check("finally")


def from_c():
    sorted([2, 1], key=lambda value: check("sorted"))
    list(map(lambda value: nested(1), [1]))
    functools.reduce(lambda a, b: check("reduce"), [1, 2, 3])
    functools.partial(nested, 2)()
    del_me = Kind()
    del del_me
    compiled = compile("def made():\n\n  return check('exec')\nmade()\n", "<made here>", "exec")
    exec(compiled, {"check": check})
    eval("check('eval')", {"check": check})


def deep(depth):
    if depth:
        return deep(depth - 1)
    return check("deep")


def main():
    plain()
    from_c()
    in_thread()
    deep(60)
    if sys.version_info >= (3, 6):
        import python_scenes_3

        python_scenes_3.run()


if __name__ == "__main__":
    check("module")
    main()
    print(json.dumps({"version": python_probe.detached.version(), "records": python_probe.records}))
