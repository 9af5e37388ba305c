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
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
