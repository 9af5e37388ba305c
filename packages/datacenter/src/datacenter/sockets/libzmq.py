"""The C functions of the very libzmq that pyzmq uses, as pointers for native code of ours.

Sockets are handles of one loaded library: another copy of libzmq in the process must never get them. So nothing is
searched for: the symbols are looked up from pyzmq's own extension module, which either links to its libzmq (dlsym goes
through a library's dependencies) or contains it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from ctypes import c_void_p

import zmq.backend.cython._zmq as extension

from datacenter.errors import DatacenterError
from datacenter.sockets.owned import OwnedSocket


def function_pointers(names: Iterable[str]) -> list[int]:
    """The addresses of exported functions (`zmq_msg_recv`, ...), in the order of `names`.

    Raises DatacenterError if one is not to be had: pyzmq with another backend, or with a libzmq that hides its symbols.
    """
    try:
        library = ctypes.CDLL(extension.__file__)
        return [int(ctypes.cast(getattr(library, name), c_void_p).value or 0) for name in names]
    except (OSError, AttributeError) as error:
        raise DatacenterError(f"libzmq's functions cannot be reached: {error}") from error


def pointer(owned: OwnedSocket) -> int:
    """The `void *` of a socket. It is valid until the socket is closed; the caller keeps to its one thread."""
    return int(owned.raw.underlying)
