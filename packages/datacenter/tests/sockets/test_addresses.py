"""Addresses are checked and made numeric before libzmq sees them."""

from __future__ import annotations

import pytest

from datacenter.errors import AddressError
from datacenter.sockets.addresses import check_told, for_bind, for_connect


@pytest.mark.parametrize(
    ("text", "given", "local"),
    [
        ("tcp://127.0.0.1:7700", "tcp://127.0.0.1:7700", True),
        ("tcp://127.0.0.1:*", "tcp://127.0.0.1:*", True),
        ("tcp://127.0.0.1:0", "tcp://127.0.0.1:*", True),
        ("tcp://localhost:7700", "tcp://127.0.0.1:7700", True),
        ("tcp://[::1]:7700", "tcp://[::1]:7700", True),
        ("tcp://*:7700", "tcp://*:7700", False),
        ("tcp://0.0.0.0:7700", "tcp://0.0.0.0:7700", False),
        ("tcp://192.0.2.1:7700", "tcp://192.0.2.1:7700", False),
        ("ipc:///run/a.sock", "ipc:///run/a.sock", True),
        ("ipc://*", "ipc://*", True),
        ("inproc://a", "inproc://a", True),
    ],
)
def test_good_to_listen_at(text: str, given: str, local: bool) -> None:
    address = for_bind(text)
    assert (address.text, address.local) == (given, local)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "127.0.0.1:7700",
        "tcp://",
        "tcp://127.0.0.1",
        "tcp://127.0.0.1:",
        "tcp://127.0.0.1:port",
        "tcp://127.0.0.1:65536",
        "tcp://127.0.0.1:-1",
        "tcp://127.0.0.1:7700/path",
        "tcp://127.0.0.1:7700;127.0.0.1:7701",
        "tcp://::1:7700",
        "tcp://127.0.0.1:7700\n",
        "tcp://no-such-host.invalid:7700",
        "udp://127.0.0.1:7700",
        "pgm://eth0;239.192.1.1:5555",
        "ipc://" + "a" * 108,
    ],
)
def test_bad_for_both(text: str) -> None:
    for check in (for_bind, for_connect):
        with pytest.raises(AddressError):
            check(text)


@pytest.mark.parametrize("text", ["tcp://*:7700", "tcp://127.0.0.1:0", "tcp://127.0.0.1:*", "ipc://*"])
def test_bad_to_connect_to(text: str) -> None:
    with pytest.raises(AddressError):
        for_connect(text)


@pytest.mark.parametrize("text", ["tcp://127.0.0.1:7700", "tcp://192.0.2.1:1", "tcp://[::1]:7700", "ipc:///run/a.sock"])
def test_good_to_tell_others(text: str) -> None:
    check_told(text)
    assert for_connect(text, resolve=False).text == text


@pytest.mark.parametrize(
    "text",
    ["", "tcp://*:7700", "tcp://127.0.0.1:*", "tcp://localhost:7700", "tcp://a.invalid:1", "inproc://a", "ipc://*"],
)
def test_bad_to_tell_others(text: str) -> None:
    with pytest.raises(AddressError):
        check_told(text)


def test_a_host_name_is_only_looked_up_where_that_is_allowed() -> None:
    assert for_connect("tcp://localhost:7700").text == "tcp://127.0.0.1:7700"
    with pytest.raises(AddressError, match="not looked up here"):
        for_connect("tcp://localhost:7700", resolve=False)
