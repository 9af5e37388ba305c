"""Rust's symbol names: the v0 mangling (RFC 2603) and the older one, which is C++'s with a hash at its end.

Both without the crate's hash, as rustc's own messages show them. What does not follow the grammar is no Rust name.
"""

from __future__ import annotations

import re
from collections.abc import Callable

_LEGACY = re.compile(r"_?_ZN(\d.+)17h[0-9a-f]{16}E$", re.ASCII)
_ESCAPE = re.compile(r"\$(SP|BP|RF|LT|GT|LP|RP|C|u[0-9a-f]{1,6})\$")
_ESCAPED = {"SP": "@", "BP": "*", "RF": "&", "LT": "<", "GT": ">", "LP": "(", "RP": ")", "C": ","}
_BASIC = {
    "a": "i8", "b": "bool", "c": "char", "d": "f64", "e": "str", "f": "f32", "h": "u8", "i": "isize", "j": "usize",
    "l": "i32", "m": "u32", "n": "i128", "o": "u128", "p": "_", "s": "i16", "t": "u16", "u": "()", "v": "...",
    "x": "i64", "y": "u64", "z": "!",
}  # fmt: skip
_DEEPEST = 200  # nesting of a name; and the longest text that back references may unfold it to
_LONGEST = 1 << 14


def demangle_rust(name: str) -> str | None:
    """The Rust path that a symbol names, or None if it is not a Rust symbol."""
    start = 2 if name.startswith("_R") else 3 if name.startswith("__R") else 0
    try:
        if start:
            return _V0(name[start:].partition(".")[0]).symbol()
        return _legacy(name)
    except (_NotRustError, IndexError, ValueError, OverflowError, RecursionError):
        return None


class _NotRustError(Exception):
    pass


def _legacy(name: str) -> str | None:
    found = _LEGACY.match(name)
    if found is None:
        return None
    rest, parts = found[1], []
    while rest:
        digits = re.match(r"\d+", rest, re.ASCII)
        if digits is None:
            return None
        length = int(digits[0])
        part, rest = rest[digits.end() :][:length], rest[digits.end() + length :]
        if len(part) != length:
            return None
        part = part[1:] if part.startswith("_$") else part
        part = part.replace("..", "::")
        parts.append(_ESCAPE.sub(lambda code: _ESCAPED.get(code[1]) or chr(int(code[1][1:], 16)), part))
    return "::".join(parts)


class _V0:
    """One symbol after its prefix, read from left to right."""

    def __init__(self, text: str) -> None:
        self.text, self.at, self.depth, self.lifetimes, self.written = text, 0, 0, 0, 0

    def symbol(self) -> str:
        if not self.text[0].isupper():
            raise _NotRustError  # a version of the mangling that is not known
        path = self.path(value=True)
        if self.at < len(self.text):  # the crate that instantiated it, which no reader asks for
            self.path(value=False)
        if self.at < len(self.text):
            raise _NotRustError
        return path

    # --- characters and numbers

    def next(self) -> str:
        self.at += 1
        return self.text[self.at - 1]

    def take(self, character: str) -> bool:
        found = self.text[self.at : self.at + 1] == character
        self.at += found
        return found

    def base_62(self) -> int:
        if self.take("_"):
            return 0
        value = 0
        while not self.take("_"):
            digit = self.next()
            if not (digit.isascii() and digit.isalnum()):
                raise _NotRustError
            value = value * 62 + (int(digit, 36) if not digit.isupper() else ord(digit) - ord("A") + 36)
        return value + 1

    def disambiguator(self) -> int:
        return self.base_62() + 1 if self.take("s") else 0

    def name(self) -> str:
        punycode = self.take("u")
        digits = re.compile(r"0|[1-9]\d*", re.ASCII).match(self.text, self.at)
        if digits is None:
            raise _NotRustError
        self.at = digits.end()
        self.take("_")
        length = int(digits[0])
        text, self.at = self.text[self.at : self.at + length], self.at + length
        if len(text) != length:
            raise _NotRustError
        if punycode:
            basic, _, rest = text.rpartition("_")
            text = (basic + "-" + rest if basic else rest).encode().decode("punycode")
        return text

    def nested(self, read: Callable[[], str]) -> str:
        """Bounds what a hostile name can cost: how deep it nests, and how long its back references make it."""
        self.depth += 1
        if self.depth > _DEEPEST or self.written > _LONGEST:
            raise _NotRustError
        text = read()
        self.depth -= 1
        self.written += 1
        if len(text) > _LONGEST:
            raise _NotRustError
        return text

    def back_reference(self, read: Callable[[], str]) -> str:
        here = self.at - 1
        target = self.base_62()
        if target >= here:
            raise _NotRustError
        after, self.at = self.at, target
        text = self.nested(read)
        self.at = after
        return text

    # --- paths

    def path(self, *, value: bool) -> str:
        return self.nested(lambda: self._path(value))

    def _path(self, value: bool) -> str:
        tag = self.next()
        if tag == "C":
            self.disambiguator()
            return self.name()
        if tag == "N":
            space, outer = self.next(), self.path(value=value)
            number, name = self.disambiguator(), self.name()
            if space.isupper():
                kind = {"C": "closure", "S": "shim"}.get(space, space)
                return f"{outer}::{{{kind}{':' + name if name else ''}#{number}}}"
            return f"{outer}::{name}" if name else outer
        if tag in "MX":
            self.disambiguator()
            self.path(value=False)  # where the impl is written
        if tag in "MXY":
            of = self.type()
            return f"<{of}>" if tag == "M" else f"<{of} as {self.path(value=False)}>"
        if tag == "I":
            outer = self.path(value=value)
            return f"{outer}{'::' if value else ''}<{', '.join(self.until_end(self.argument))}>"
        if tag == "B":
            return self.back_reference(lambda: self.path(value=value))
        raise _NotRustError

    def until_end(self, read: Callable[[], str]) -> list[str]:
        items = []
        while not self.take("E"):
            items.append(read())
        return items

    def argument(self) -> str:
        if self.take("L"):
            return self.lifetime(self.base_62())
        return self.constant() if self.take("K") else self.type()

    # --- types

    def type(self) -> str:
        return self.nested(self._type)

    def _type(self) -> str:
        tag = self.next()
        if tag in _BASIC:
            return _BASIC[tag]
        if tag == "A":
            return f"[{self.type()}; {self.constant()}]"
        if tag == "S":
            return f"[{self.type()}]"
        if tag == "T":
            items = self.until_end(self.type)
            return f"({', '.join(items)}{',' if len(items) == 1 else ''})"
        if tag in "RQ":
            lifetime = self.lifetime(self.base_62()) + " " if self.take("L") else ""
            lifetime = "" if lifetime == "'_ " else lifetime
            return f"&{lifetime}{'mut ' if tag == 'Q' else ''}{self.type()}"
        if tag in "PO":
            return f"*{'const' if tag == 'P' else 'mut'} {self.type()}"
        if tag == "F":
            return self.function()
        if tag == "D":
            return self.dynamic()
        if tag == "B":
            return self.back_reference(self.type)
        self.at -= 1
        return self.path(value=False)

    def binder(self) -> tuple[str, int]:
        count = self.base_62() + 1 if self.take("G") else 0
        if count > _DEEPEST:
            raise _NotRustError
        self.lifetimes += count
        names = ", ".join(self.lifetime(count - index) for index in range(count))
        return (f"for<{names}> " if count else ""), count

    def lifetime(self, index: int) -> str:
        if index == 0:
            return "'_"
        depth = self.lifetimes - index
        if depth < 0:
            raise _NotRustError
        return f"'{chr(ord('a') + depth)}" if depth < 26 else f"'_{depth}"

    def function(self) -> str:
        text, bound = self.binder()
        text += "unsafe " if self.take("U") else ""
        if self.take("K"):
            text += f'extern "{"C" if self.take("C") else self.name().replace("_", "-")}" '
        text += f"fn({', '.join(self.until_end(self.type))})"
        result = self.type()
        self.lifetimes -= bound
        return text if result == "()" else f"{text} -> {result}"

    def dynamic(self) -> str:
        text, bound = self.binder()
        text = f"dyn {text}{' + '.join(self.until_end(self.bound))}"
        self.lifetimes -= bound
        if not self.take("L"):
            raise _NotRustError
        lifetime = self.lifetime(self.base_62())
        return text if lifetime == "'_" else f"{text} + {lifetime}"

    def bound(self) -> str:
        trait = self.path(value=False)
        types = []
        while self.take("p"):
            types.append(f"{self.name()} = {self.type()}")
        if not types:
            return trait
        return f"{trait[:-1]}, {', '.join(types)}>" if trait.endswith(">") else f"{trait}<{', '.join(types)}>"

    # --- constants

    def constant(self) -> str:
        return self.nested(self._constant)

    def _constant(self) -> str:
        tag = self.next()
        if tag == "p":
            return "_"
        if tag == "B":
            return self.back_reference(self.constant)
        if tag not in "abchijlmnostxy":
            raise _NotRustError  # structures and texts as constants: not stable in the language
        minus = "-" if self.take("n") else ""
        end = self.text.index("_", self.at)
        digits, self.at = self.text[self.at : end] or "0", end + 1
        number = int(digits, 16)
        if tag == "b":
            return "true" if number else "false"
        if tag == "c":
            return repr(chr(number))
        return f"{minus}{number}" if number < 1 << 64 else f"{minus}0x{digits}"
