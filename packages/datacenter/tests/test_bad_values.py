"""Values that cannot work are refused where they are given, by a typed error that names them; none is met later."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import math
import os
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from datacenter import AsyncClient, Broker, Client, ClientOptions, Server, Service, ServiceOptions
from datacenter.broker import BrokerOptions
from datacenter.broker.relay_manager import RelayManagerOptions
from datacenter.broker.relay_reports import RelayOptions
from datacenter.commands.call import parse
from datacenter.errors import (
    AddressError,
    BadArgumentsError,
    BadOptionError,
    ClosedError,
    DatacenterError,
    DeadlineError,
    NoSuchServiceError,
    NotServableError,
)
from datacenter.session import SessionOptions
from datacenter.testing import Launcher, RunningBroker

Until = Callable[[Callable[[], object], str], Awaitable[None]]
NO_DRAIN = ServiceOptions(drain_s=0)
NO_NUMBERS = (math.nan, math.inf, -math.inf, "5", None, True, -1, [])
PAUSE = ("reconnect_min_ms", "reconnect_max_ms")
#: the class, its options in whole numbers, in seconds, and those that are True or False
CLASSES: list[tuple[type, tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = [
    (ClientOptions, ("max_in_flight", "max_resends", *PAUSE), ("deadline_s", "relay_after_s"), ("insecure",)),
    (
        ServiceOptions,
        ("max_in_flight", "max_outbox", "max_outbox_per_client", "threads", "max_message_bytes"),
        ("drain_s",),
        (),
    ),
    (
        BrokerOptions,
        ("missed_heartbeats", "max_message_bytes", "max_control_bytes", "max_sessions", "max_instances"),
        ("heartbeat_s", "lease_s", "grace_leases"),
        (),
    ),
    (
        RelayOptions,
        (
            "max_instances",
            "max_in_flight",
            "max_waiting",
            "client_high_water",
            "instance_high_water",
            "max_message_bytes",
        ),
        ("drain_s", "late_reply_s"),
        (),
    ),
    (RelayManagerOptions, ("max_relays",), ("relay_idle_s", "disagreement_s", "wait_s", "stop_deadline_s"), ()),
    (SessionOptions, ("missed_heartbeats", *PAUSE), ("heartbeat_s", "request_s"), ("insecure",)),
]


@pytest.mark.parametrize(
    ("kind", "whole", "seconds", "flags"), CLASSES, ids=lambda value: getattr(value, "__name__", "")
)
def test_every_option_refuses_what_cannot_work(
    kind: type, whole: tuple[str, ...], seconds: tuple[str, ...], flags: tuple[str, ...]
) -> None:
    kind()  # and the defaults can
    wrong: list[tuple[str, Any]] = [(name, value) for name in (*whole, *seconds) for value in NO_NUMBERS]
    wrong += [(name, value) for name in whole for value in (1.5, 2**31, 10**5000)]
    wrong += [(name, value) for name in seconds for value in (1e10, 10**400)]
    wrong += [(name, value) for name in flags for value in ("no", 0, None)]
    for name, value in wrong:
        with pytest.raises(BadOptionError, match=rf"^{name}=.* cannot work: it must be .") as caught:
            kind(**{name: value})
        assert len(str(caught.value)) < 400


@pytest.mark.parametrize("kind", [entry[0] for entry in CLASSES])
def test_no_option_is_forgotten(kind: type) -> None:
    for field in dataclasses.fields(kind):
        with pytest.raises(BadOptionError, match=f"^{field.name}="):
            kind(**{field.name: object()})


@pytest.mark.parametrize("kind", [ClientOptions, SessionOptions])
def test_the_first_pause_is_not_longer_than_the_longest(kind: type) -> None:
    kind(reconnect_min_ms=5, reconnect_max_ms=5)
    with pytest.raises(BadOptionError, match="reconnect_min_ms=6 is more than reconnect_max_ms=5"):
        kind(reconnect_min_ms=6, reconnect_max_ms=5)


@pytest.mark.parametrize(
    ("kind", "name"),
    [(RelayOptions, "native"), (RelayManagerOptions, "relay"), (BrokerOptions, "relays")],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_options_within_options_are_of_their_class(kind: type, name: str) -> None:
    with pytest.raises(BadOptionError, match=f"^{name}='C'"):
        kind(**{name: "C"})


# --- calls and addresses


@pytest.mark.parametrize("deadline_s", [0, -1, -math.inf, -(10**400)], ids=["0", "-1", "-inf", "-10**400"])
async def test_less_than_no_time_is_no_time(server: Server, client: AsyncClient, deadline_s: float) -> None:
    await client.call("echo.add", 1)
    with pytest.raises(DeadlineError) as caught:
        await client.call("echo.add", 2, deadline_s=deadline_s)
    assert not caught.value.sent
    with pytest.raises((DeadlineError, NoSuchServiceError)):  # the answer may be there already
        await client.resolve("stranger", deadline_s=deadline_s)
    assert client.statistics()["in_flight"] == 0


@pytest.mark.parametrize("deadline_s", [math.nan, math.inf, 10**400, "5", [], True], ids=lambda value: str(value)[:9])
async def test_what_is_no_number_of_seconds_is_no_deadline(client: AsyncClient, deadline_s: Any) -> None:
    with pytest.raises(BadArgumentsError, match="deadline_s="):
        client.call("echo.add", 2, deadline_s=deadline_s)


@pytest.mark.parametrize("target", [["a"], {}, None, 5, b"echo.add", ""], ids=repr)
async def test_what_is_no_text_names_no_method(client: AsyncClient, target: Any) -> None:
    with pytest.raises(NotServableError, match="does not name a method"):
        client.call(target)


@pytest.mark.parametrize("address", [None, 5, b"tcp://127.0.0.1:7700", ["tcp://127.0.0.1:7700"], ""], ids=repr)
def test_what_is_no_text_is_no_address(address: Any) -> None:
    with pytest.raises(AddressError, match="is no address"):
        Client(address)


@pytest.mark.parametrize("address", [None, 5, b"tcp://127.0.0.1:0"], ids=repr)
async def test_a_server_listens_at_text(broker: Broker, echo: Service, address: Any) -> None:
    with pytest.raises(AddressError, match="is no address"):
        Server(echo, broker=broker.endpoint, listen=address).start()


@pytest.mark.parametrize("advertise", ["rubbish", "tcp://127.0.0.1:0", "tcp://*:7700", "tcp://0.0.0.0:7700"])
async def test_what_nobody_can_connect_to_is_not_advertised(broker: Broker, echo: Service, advertise: str) -> None:
    with pytest.raises(AddressError, match=r"is no address|connect to"):
        Server(echo, broker=broker.endpoint, advertise=advertise).start()
    assert broker.statistics()["instances"] == 0


async def test_a_host_is_advertised_with_the_port_that_was_bound(
    broker: Broker, client: AsyncClient, echo: Service
) -> None:
    listen = "tcp://0.0.0.0:0"
    async with Server(
        echo, broker=broker.endpoint, listen=listen, advertise_host="tcp://localhost", insecure=True, options=NO_DRAIN
    ) as server:
        found = (await client.resolve("echo")).instances[0].endpoint
        assert found == f"tcp://127.0.0.1:{server.endpoint.rpartition(':')[2]}"


async def test_a_name_is_advertised_as_its_number(broker: Broker, client: AsyncClient, echo: Service) -> None:
    async with Server(echo, broker=broker.endpoint, advertise="tcp://localhost:7001", options=NO_DRAIN):
        assert (await client.resolve("echo")).instances[0].endpoint == "tcp://127.0.0.1:7001"


# --- one error for each call


async def test_each_call_gets_an_error_of_its_own_at_the_close(broker: Broker, server: Server) -> None:
    client = AsyncClient(broker.endpoint)
    calls = [client.call("echo.wait_for_ever", deadline_s=100) for _ in range(50)]
    await client.call("echo.add", 1)
    await client.close()
    errors = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(error) for error in errors} == {ClosedError}
    assert len({id(error) for error in errors}) == 50


async def test_each_call_of_a_name_that_cannot_be_had_gets_an_error_of_its_own(client: AsyncClient) -> None:
    errors = await asyncio.gather(*[client.call("stranger.x") for _ in range(50)], return_exceptions=True)
    assert {type(error) for error in errors} == {NoSuchServiceError}
    assert len({id(error) for error in errors}) == 50


async def test_blocked_threads_get_an_error_of_their_own_at_the_close(
    broker: Broker, server: Server, until: Until
) -> None:
    client = await asyncio.to_thread(Client, broker.endpoint)
    errors: list[DatacenterError] = []

    def call() -> None:
        try:
            client.call("echo.wait_for_ever", deadline_s=100)
        except DatacenterError as error:
            errors.append(error)

    threads = [threading.Thread(target=call) for _ in range(20)]
    for thread in threads:
        thread.start()
    await until(lambda: client.statistics()["in_flight"] == 20, "all wait")
    await asyncio.to_thread(client.close)
    await until(lambda: not any(thread.is_alive() for thread in threads), "all ended")
    assert {type(error) for error in errors} == {ClosedError}
    assert len({id(error) for error in errors}) == 20


def test_a_copy_of_an_error_says_the_same_without_its_traceback() -> None:
    try:
        raise DeadlineError("late", "later", sent=True)
    except DeadlineError as error:
        again = copy.copy(error)
    assert (str(again), again.sent, again.__traceback__) == ("late\n  later", True, None)


# --- a registration that is refused


async def test_a_registration_that_is_refused_is_told_once(
    echo: Service, until: Until, caplog: pytest.LogCaptureFixture
) -> None:
    # Many heartbeats soon, and nobody loses a lease or a session meanwhile, however slow the machine is.
    quick = BrokerOptions(heartbeat_s=0.1, missed_heartbeats=500, lease_s=60, grace_leases=0)
    async with (
        Broker("tcp://127.0.0.1:0", options=quick) as broker,
        Server(echo, broker=broker.endpoint, options=NO_DRAIN),
        AsyncClient(broker.endpoint) as client,
    ):
        session = client._session
        (instance,) = (await client.resolve("echo")).instances
        taken = session.register("echo", "topic", msgspec.structs.replace(instance, id="another"))
        with pytest.raises(DatacenterError, match="is registered as rpc"):
            await asyncio.wrap_future(taken)
        before = broker.statistics()["refused"]
        await until(lambda: broker.statistics()["refused"] > before + 4, "it was asked for at several heartbeats")
        assert caplog.text.count("echo is not registered") == 1
        await asyncio.wrap_future(session.unregister("another"))


# --- the command line

BAD_WORDS: list[tuple[tuple[str | bytes, ...], str]] = [
    (("drain", "s", "--deadline-s", "inf"), "--deadline-s"),
    (("drain", "s", "--deadline-s", "1e12"), "--deadline-s"),
    (("drain", "s", "--deadline-s", "nan"), "Invalid value"),
    (("drain", b"\xff"), "cannot name a service or an instance"),
    (("call", "s.x", "--deadline-s", "inf"), "--deadline-s"),
    (("call", "s.x", "--deadline-s", "nan"), "Invalid value"),
    (("call", b"s.\xff"), "cannot name a method"),
    (("up", "--max-message-bytes", "99999999999999999999"), "2147483647"),
    (("up", "--max-sessions", "99999999999999999999"), "2147483647"),
    (("up", "--lease-s", "inf"), "86400"),
    (("up", "--lease-s", "1e300"), "86400"),
    (("up", "--lease-s", "nan"), "Invalid value"),
    (("serve", "gone:gone", "--drain-s", "inf"), "--drain-s"),
    (("serve", "gone:gone", "--drain-s", "nan"), "Invalid value"),
    (("serve", "gone:gone", "--threads", "99999999999"), "--threads"),
    (("serve", "gone:gone", "--advertise", "rubbish"), "'rubbish' is no address"),
    (("serve", "gone:gone", "--advertise", "tcp://127.0.0.1:0"), "names no one host and port"),
]


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launcher]:
    (tmp_path / "gone.py").write_text("from datacenter import Service\ngone = Service('gone')\n")
    with Launcher(cwd=tmp_path) as launcher:
        yield launcher


@pytest.fixture
def other_broker(launch: Launcher) -> RunningBroker:
    return launch.broker(options=("--lease-s", "60"))


def test_a_bad_word_gets_one_message(launch: Launcher, other_broker: RunningBroker, tmp_path: Path) -> None:
    environment = {**os.environ, "NO_COLOR": "1", "DATACENTER_BROKER": other_broker.address}
    for few in range(0, len(BAD_WORDS), 3):  # some at a time: each is a start of Python
        started = [
            (
                words,
                text,
                subprocess.Popen(
                    [sys.executable, "-m", "datacenter", *words],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    cwd=tmp_path,
                    env=environment,
                ),
            )
            for words, text in BAD_WORDS[few : few + 3]
        ]
        for words, text, process in started:
            try:
                output, errors = process.communicate(timeout=60)
            finally:
                process.kill()
            assert text in errors, (words, errors)
            assert (process.returncode, output) == (2, ""), (words, errors)
            assert "Traceback" not in errors, words


def test_words_that_are_no_json_are_text() -> None:
    words = ["[" * 100_000, "1" + "0" * 5000, "nul"]
    assert parse(words) == (words, {})


def test_a_second_drain_says_that_calls_may_still_run(launch: Launcher, other_broker: RunningBroker) -> None:
    service = launch.service("gone:gone", other_broker)
    assert launch.command("drain", "gone", "--broker", other_broker.address).wait() == 0
    again = launch.command("drain", "gone", "--broker", other_broker.address)
    assert again.wait() == 0
    assert "nobody serves gone now; what was drained before may still finish its calls" in again.errors
    assert service.wait() == 0
