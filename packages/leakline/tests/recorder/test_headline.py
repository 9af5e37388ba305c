"""Whose code a frame is, and which frame is the headline. Pure."""

from __future__ import annotations

import pytest

from leakline.facts import Frame
from leakline.recorder.headline import Whose, headline, whose

CLIENT = "/home/app/client"


def native(function: str, module: str = CLIENT, file: str = "", line: int = 0) -> Frame:
    return Frame(function=function, file=file or module, line=line, language="native", module=module)


def python(function: str, file: str) -> Frame:
    return Frame(function=function, file=file, line=7, language="python")


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (native("QryServerPort", file="/build/client.cpp", line=42), Whose.USER),
        (native("anetListen", "/usr/bin/redis-server"), Whose.USER),
        (native("handle", "/opt/app/plugin.so", "/build/plugin.c", 3), Whose.USER),
        (native("handle", "/opt/app/plugin.so"), Whose.UNSURE),
        (native("zmq::socket_t::socket_t(int)", file="/usr/include/zmq.hpp", line=9), Whose.HEADER),
        (native("zmq::socket_t::socket_t(int)", file="/usr/local/include/zmq.hpp", line=9), Whose.HEADER),
        (native("asio::open()", file="/build/third_party/asio/include/asio.hpp", line=9), Whose.HEADER),
        (native("asio::open()", file="include/asio.hpp", line=9), Whose.HEADER),
        (native("includes", file="/build/includes/own.cpp", line=9), Whose.USER),
        (native("zmq_socket", "/usr/lib/x86_64-linux-gnu/libzmq.so.5"), Whose.SYSTEM),
        (native("zmq_socket", "/opt/conda/lib/libzmq.so.5", "/build/zmq.cpp", 9), Whose.SYSTEM),
        (native("fopen", "/lib/x86_64-linux-gnu/libc.so.6"), Whose.SYSTEM),
        (native("fopen", "/nix/store/abc-glibc/lib/libc.so.6"), Whose.SYSTEM),
        (native("dlopen", "/lib64/ld-linux-x86-64.so.2"), Whose.SYSTEM),
        (native("std::thread::run()", "/opt/gcc/lib64/libstdc++.so.6"), Whose.SYSTEM),
        (native("os_open", "/opt/python/bin/python3.11"), Whose.SYSTEM),
        (native("os_open", "/opt/python/lib/libpython3.11.so.1.0"), Whose.SYSTEM),
        (native("sock_initobj", "/opt/python/lib/python3.11/lib-dynload/_socket.so"), Whose.SYSTEM),
        (native("zmq_socket", "/venv/lib/python3.11/site-packages/pyzmq.libs/libzmq.so"), Whose.PACKAGE),
        (native("__pyx_pf_Socket", "/opt/app/_zmq.so", "/build/_zmq.c", 9), Whose.PACKAGE),
        (native("std::fs::File::open", file="/rustc/59807616e/library/std/src/fs.rs", line=9), Whose.SYSTEM),
        (native("mio::net::bind", file="/home/a/.cargo/registry/src/mio-1.0/src/net.rs", line=9), Whose.PACKAGE),
        (native("client+0x1234"), Whose.NAMELESS),
        (native("libown.so+0x1234", "/opt/app/libown.so"), Whose.NAMELESS),
        (native("libzmq.so.5+0x1234", "/usr/lib/x86_64-linux-gnu/libzmq.so.5"), Whose.UNKNOWN),
        (native("python3.11+0x1234", "/opt/python/bin/python3.11"), Whose.UNKNOWN),
        (native("0x7f0012345678", ""), Whose.UNKNOWN),
        (native("<signal handler called>", "/lib/libc.so.6"), Whose.UNKNOWN),
        (python("query", "/home/app/service.py"), Whose.USER),
        (python("<module>", "<string>"), Whose.USER),
        (python("socket", "/venv/lib/python3.11/site-packages/zmq/sugar/context.py"), Whose.PACKAGE),
        (python("get", "/usr/lib/python3/dist-packages/requests/api.py"), Whose.PACKAGE),
        (python("__init__", "/usr/lib/python3.11/socket.py"), Whose.SYSTEM),
        (python("run", "/home/me/.pyenv/versions/3.8.18/lib/python3.8/threading.py"), Whose.SYSTEM),
        (python("_find_and_load", "<frozen importlib._bootstrap>"), Whose.SYSTEM),
        (python("a Python frame that could not be read", ""), Whose.UNKNOWN),
    ],
)
def test_whose_a_frame_is(frame: Frame, expected: Whose) -> None:
    assert whose(frame) is expected


def test_the_headline_is_the_innermost_of_the_users_own() -> None:
    frames = [
        native("libzmq.so.5+0x1234", "/usr/lib/libzmq.so.5"),
        native("zmq_socket", "/usr/lib/libzmq.so.5"),
        native("zmq::socket_t::socket_t(int)", file="/usr/include/zmq.hpp", line=9),
        native("QryServerPort", file="/build/client.cpp", line=42),
        native("main", file="/build/client.cpp", line=80),
    ]
    assert headline(frames).function == "QryServerPort"
    # If there is none: what is nearest to it.
    assert headline(frames[:3]).function == "zmq::socket_t::socket_t(int)"
    assert headline(frames[:2]).function == "zmq_socket"
    assert headline(frames[:1]).function == "libzmq.so.5+0x1234"
    with pytest.raises(ValueError, match="empty"):
        headline([])


def test_the_headline_of_a_stripped_program_is_its_own_call_and_not_that_of_libc() -> None:
    """Else all that it opens from anywhere would be one line's."""
    frames = [
        native("socket", "/usr/lib/x86_64-linux-gnu/libc.so.6"),
        native("client+0x9caa"),
        native("client+0x2cab"),
        native("__libc_start_call_main", "/usr/lib/x86_64-linux-gnu/libc.so.6", "libc_start_call_main.h", 58),
    ]
    assert headline(frames).function == "client+0x9caa"


def test_a_package_is_a_better_headline_than_the_standard_library() -> None:
    frames = [
        python("__init__", "/usr/lib/python3.11/socket.py"),
        python("connect", "/venv/lib/python3.11/site-packages/redis/connection.py"),
        python("run", "/usr/lib/python3.11/threading.py"),
    ]
    assert headline(frames).function == "connect"
