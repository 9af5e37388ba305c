"""Opens descriptors in the ways that Python's standard library has, each from a function and a line of its own.

Prints "function line descriptor …" for each, then waits for its input to end. Leaves out what this version lacks.
Runs on every Python since 3.6.
"""

import array
import ctypes
import multiprocessing
import os
import pty
import select
import socket
import subprocess
import sys
import tempfile
import time

AF, STREAM = socket.AF_UNIX, socket.SOCK_STREAM
LIBC = ctypes.CDLL(None)
LIBC.fopen.restype = ctypes.c_void_p
KEPT = []  # nothing is closed


def case(function):
    """Runs a case; it returns descriptors, or what has them."""
    try:
        result = function()
    except AttributeError:  # a function that is newer than this Python
        return function
    KEPT.append(result)
    numbers = [_number(one) for one in (result if isinstance(result, (tuple, list)) else [result])]
    print(function.__name__, function.__code__.co_firstlineno + 2, *numbers)
    return function


def _number(one):
    return one if isinstance(one, int) else one.fileno()


def begun(entries):
    """The folder of a scandir() that is under way; its descriptor is not told."""
    next(entries)
    KEPT.append(entries)
    folders = [int(name) for name in os.listdir("/proc/self/fd") if os.path.exists("/proc/self/fd/" + name)]
    return next(number for number in folders if number > 2 and os.readlink(f"/proc/self/fd/{number}") == "/")


def forked_terminal(made):
    pid, number = made
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return number


def with_message():
    sender, receiver = socket.socketpair(AF, socket.SOCK_DGRAM)
    sender.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [1, 2]))])
    KEPT.extend((sender, receiver))
    return receiver


def received(message):
    numbers = array.array("i")
    numbers.frombytes(message[1][0][2])
    return list(numbers)


waiting = socket.socket(AF, STREAM)
waiting.bind("listener")
waiting.listen(1)
peer = socket.socket(AF, STREAM)
peer.connect("listener")


@case
def case_open():
    return open(os.devnull)


@case
def case_os_open():
    return os.open(os.devnull, os.O_RDONLY)


@case
def case_os_open_created():
    return os.open("created", os.O_CREAT | os.O_RDWR, 0o600)


@case
def case_os_dup():
    return os.dup(2)


@case
def case_os_dup2():
    return os.dup2(2, 200) or 200


@case
def case_os_pipe():
    return os.pipe()


@case
def case_os_pipe2():
    return os.pipe2(os.O_CLOEXEC)


@case
def case_os_openpty():
    return os.openpty()


@case
def case_pty_fork():
    return forked_terminal(pty.fork())


@case
def case_os_memfd_create():
    return os.memfd_create("calls")


@case
def case_os_eventfd():
    return os.eventfd(0)


@case
def case_os_pidfd_open():
    return os.pidfd_open(os.getpid())


@case
def case_os_posix_openpt():
    return os.posix_openpt(os.O_RDWR | os.O_NOCTTY)


@case
def case_os_timerfd_create():
    return os.timerfd_create(time.CLOCK_MONOTONIC)


@case
def case_os_scandir():
    return begun(os.scandir("/"))


@case
def case_os_fdopen():
    return os.fdopen(os.open(os.devnull, os.O_RDONLY))


@case
def case_os_popen():
    return os.popen("exit")


@case
def case_select_epoll():
    return select.epoll()


@case
def case_socket():
    return socket.socket(AF, STREAM)


@case
def case_socket_pair():
    return socket.socketpair(AF, STREAM)


@case
def case_socket_accept():
    return waiting.accept()[0]


@case
def case_socket_dup():
    return waiting.dup()


@case
def case_socket_fromfd():
    return socket.fromfd(waiting.fileno(), AF, STREAM)


@case
def case_socket_create_server():
    return socket.create_server(("127.0.0.1", 0))


@case
def case_socket_recv_fds():
    return socket.recv_fds(with_message(), 1, 4)[1]


@case
def case_socket_recvmsg():
    return received(with_message().recvmsg(1, 64))


@case
def case_tempfile_file():
    return tempfile.TemporaryFile()


@case
def case_tempfile_named():
    return tempfile.NamedTemporaryFile()


@case
def case_tempfile_mkstemp():
    return tempfile.mkstemp(dir=".")[0]


@case
def case_subprocess_pipe():
    return subprocess.Popen(["true"], stdout=subprocess.PIPE).stdout


@case
def case_multiprocessing_pipe():
    return multiprocessing.Pipe()


@case
def case_ctypes():
    return ctypes.CDLL(None).eventfd(0, 0)


@case
def case_ctypes_fopen():
    return LIBC.fileno(ctypes.c_void_p(LIBC.fopen(b"/dev/null", b"r")))


@case
def case_lambda():
    return (lambda: os.dup(2))()


@case
def case_generator():
    return next(os.dup(2) for _ in [0])


print("ready", flush=True)
sys.stdin.read()
