"""Runs inside each interpreter, 2.7 to 3.14: asks the recorder and Python for the frames of the calling thread.

`python_scenes.py` calls `check(label)` from everywhere; each call appends one record to `records`.
"""

import binascii
import ctypes
import os
import sys


class Frame(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint32) for name in ("code", "unsigned_instruction", "entry", "reserved")]

    @property
    def instruction(self):
        return ctypes.c_int32(self.unsigned_instruction).value


class Origin(ctypes.Structure):
    _fields_ = [
        ("native_count", ctypes.c_uint16),
        ("python_count", ctypes.c_uint16),
        ("flags", ctypes.c_uint32),
        ("generation", ctypes.c_uint64),
        ("walk", ctypes.c_void_p),
        ("walk_sequence", ctypes.c_uint32),
        ("life", ctypes.c_uint32),
        ("stack", ctypes.c_uint32),
        ("native", ctypes.c_void_p * 48),
        ("python", Frame * 32),
        ("path", ctypes.c_void_p),
        ("path_words", ctypes.c_uint16),
    ]


class Text(ctypes.Structure):
    _fields_ = [
        ("file", ctypes.c_void_p),
        ("name", ctypes.c_void_p),
        ("file_length", ctypes.c_uint32),
        ("name_length", ctypes.c_uint32),
        ("first_line", ctypes.c_uint32),
        ("python_version", ctypes.c_uint32),
        ("lines", ctypes.c_void_p),
        ("lines_length", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
    ]


def load(kind, path):
    library = kind(path)
    library.code_text.restype = ctypes.POINTER(Text)
    library.prepare()
    return library


detached = load(
    ctypes.CDLL, os.environ["LEAKLINE_TEST_HARNESS"]
)  # ctypes gives up the GIL, as CPython around system calls
attached = load(ctypes.PyDLL, os.environ["LEAKLINE_TEST_HARNESS"])
records = []


def decode(data, flags, latin1, ucs2, ucs4):
    if flags & ucs4:
        return data.decode("utf-32-le", "surrogatepass")
    if flags & ucs2:
        return data.decode("utf-16-le", "surrogatepass")
    return data.decode("latin-1" if flags & latin1 else "ascii")


def described(frame):
    text = detached.code_text(frame.code)
    if not text:
        return None
    text = text[0]
    return {
        "file": decode(ctypes.string_at(text.file, text.file_length), text.flags, 1, 4, 16),
        "name": decode(ctypes.string_at(text.name, text.name_length), text.flags, 2, 8, 32),
        "first_line": text.first_line,
        "python_version": text.python_version,
        "lines": binascii.hexlify(ctypes.string_at(text.lines, text.lines_length)).decode(),
        "instruction": frame.instruction,
        "entry": frame.entry,
    }


def said_by_python(frame):
    found = []
    while frame is not None:
        code = frame.f_code
        name = getattr(code, "co_qualname", code.co_name)
        found.append(
            {
                "file": code.co_filename,
                "name": name,
                "first_line": code.co_firstlineno,
                "line": frame.f_lineno,
                "instruction": frame.f_lasti,
            }
        )
        frame = frame.f_back
    return found


def check(label):
    """From the caller on outwards: the frame of this function is in the middle of a line."""
    for how, library in (("detached", detached), ("attached", attached)):
        origin = Origin()
        evaluations = library.capture(ctypes.byref(origin))
        frames = [described(frame) for frame in origin.python[: origin.python_count]]
        entries = sum(frame.entry for frame in origin.python[: origin.python_count])
        records.append(
            {
                "label": label,
                "how": how,
                "flags": origin.flags,
                "entries": entries,
                "evaluations": evaluations,
                "own": frames[0]["name"] if frames and frames[0] else None,
                "recorder": frames[1:],
                "python": said_by_python(sys._getframe(1)),
            }
        )
    return label
