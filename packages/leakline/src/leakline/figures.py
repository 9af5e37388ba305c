"""Figures and foreign text in a form that a person can read, and that a terminal survives."""

from __future__ import annotations


def grouped(number: int) -> str:
    """`20 000`: thousands set apart."""
    return f"{number:,}".replace(",", " ")


def printable(text: str) -> str:
    """The text with everything escaped that would end a line or control a terminal: names of files, sockets, threads
    and programs may hold any byte.
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else _escape(each) for each in text)


def _escape(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # a byte that was no UTF-8 (PEP 383)
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


def escaped(data: object) -> object:
    """The same lists and objects, with each text as JSON can have it: bytes of names that are no UTF-8 as `\\xff`."""
    if isinstance(data, str):
        return data.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    if isinstance(data, dict):
        return {escaped(key): escaped(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [escaped(each) for each in data]
    return data


def rate_text(per_second: float) -> str:
    """`97 per second`, `4.2 per second`, `18 per minute`, `3 per hour`: a unit in which the number is at least 1."""
    for factor, unit in ((1, "second"), (60, "minute"), (3600, "hour")):
        if per_second * factor >= 0.95 or unit == "hour":
            number = per_second * factor
            return f"{number:.0f} per {unit}" if number >= 9.95 else f"{number:.1f} per {unit}"
    raise AssertionError("the loop always returns at its last unit")
