"""Origins of real programs under the recorder: named, merged, grouped, with the right headline."""

from __future__ import annotations

import importlib.util
import json
import os
import posixpath
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from leakline.facts import Frame, Origin
from leakline.recorder.headline import by_headline, headline
from leakline.recorder.origins import Namer, origins
from leakline.recorder.recording import Recording

HERE = Path(__file__).parent
QUERY = "app::Client<std::vector<int, std::allocator<int> > >::QryServerPort(int)"


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


building = _load("building")
RELAY: Path = building.PROGRAMS / "relay.c"
INTERPRETERS: dict[str, Path] = _load("interpreters").interpreters()
SUPPORTED = {version: path for version, path in INTERPRETERS.items() if version != "2.7"}


def until_ready(process: subprocess.Popen[str]) -> list[str]:
    """The lines that a program prints until it says that it is ready."""
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        if line.strip() == "ready":
            return lines
        lines.append(line)
    raise AssertionError(f"the program ended: {process.communicate()}")


def recent(recording: Recording) -> list[int]:
    return [slot.number for slot in recording.slots if slot.stack]


def names(origin: Origin) -> list[str]:
    return [frame.function for frame in origin.frames]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made: Path = building.client(tmp_path_factory.mktemp("client"), "-g")
    return made


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Path:
    library = tmp_path_factory.mktemp("relay") / "librelay.so"
    made: Path = building.build("cc", library, "-O1", "-g", "-fPIC", "-shared", RELAY)
    return made


def test_the_headline_of_a_client_is_its_query_under_a_stripped_libzmq(client: Path, recorded: Any) -> None:
    process = recorded.start(client)
    until_ready(process)
    recording = recorded.recording(process.pid)
    found = origins(recording, recent(recording))
    source = str(building.PROGRAMS / "client.cpp")
    query = Frame(QUERY, source, building.line_of("the line of the leak", "client.cpp"), "native", str(client))
    assert Counter(origin.frames[origin.headline] for origin in found)[query] == 3
    twice = found[0]
    assert (twice.count, twice.opened, twice.closed, twice.stacks) == (2, 2, 0, 1)
    assert names(twice)[2:] == [
        "zmq_socket",
        "wrapper::socket_t::make(int)",
        "wrapper::socket_t::socket_t(int)",
        QUERY,
        "main",
    ]
    assert all(name.startswith("libzmq.so.5+0x") for name in names(twice)[:2])
    grouped = by_headline(found)
    assert (grouped[0].count, grouped[0].stacks, grouped[0].frames) == (4, 3, twice.frames)
    assert [origin.count for origin in grouped] == [4, 1]


def test_the_same_with_the_real_cppzmq_and_libzmq(tmp_path: Path, recorded: Any) -> None:
    program = tmp_path / "cppzmq_client"
    building.build("c++", program, "-std=c++17", "-O2", "-g", building.PROGRAMS / "cppzmq_client.cpp", "-lzmq")
    process = recorded.start(program)
    until_ready(process)
    recording = recorded.recording(process.pid)
    largest = origins(recording, recent(recording))[0]
    query = largest.frames[largest.headline]
    line = building.line_of("the line of the leak", "cppzmq_client.cpp")
    assert (query.function, query.line, largest.count) == ("QryServerPort(char const*)", line, 5)
    inner = largest.frames[: largest.headline]
    assert {posixpath.basename(frame.module) for frame in inner} == {"libzmq.so.5", "cppzmq_client"}
    assert {frame.file for frame in inner if frame.line} == {"/usr/include/zmq.hpp"}


def test_a_signal_handler_and_what_it_interrupted(client: Path, recorded: Any) -> None:
    process = recorded.start(client)
    until_ready(process)
    recording = recorded.recording(process.pid)
    (handler,) = [origin for origin in origins(recording, recent(recording)) if "app::on_signal(int)" in names(origin)]
    assert names(handler) == ["app::on_signal(int)", "<signal handler called>", "app::interrupted()", "main"]
    loop = building.line_of("while (handled == 0)", "client.cpp")
    assert handler.frames[2].line in (loop, loop + 1)


def test_a_program_that_was_deleted_is_named_while_it_lives_and_never_wrongly(
    client: Path, tmp_path: Path, recorded: Any
) -> None:
    program = Path(shutil.copy(client, tmp_path / "client"))
    process = recorded.start(program)
    until_ready(process)
    program.unlink()
    recording = recorded.recording(process.pid)
    assert headline(origins(recording, recent(recording))[0].frames).function == QUERY
    shutil.copy(client.with_name("libzmq.so.5"), program)  # another file at its place
    assert headline(origins(recording, recent(recording))[0].frames).function == QUERY
    process.communicate("")
    dead = recorded.recording(process.pid)
    with Namer(dead) as namer:
        found = namer.origins(recent(dead))
        assert {frame.function for origin in found for frame in origin.frames if frame.module == str(program)} == {
            name for origin in found for name in names(origin) if name.startswith("client+0x")
        }
        assert namer.notes == (f"{program} was replaced since it was loaded: its functions are shown as offsets",)


@pytest.mark.parametrize("what", ["--strip-debug", "--strip-all"])
def test_a_client_without_debug_information(what: str, client: Path, tmp_path: Path, recorded: Any) -> None:
    program = tmp_path / "client"
    subprocess.run(["strip", what, "-o", program, client], check=True)
    process = recorded.start(program)
    until_ready(process)
    recording = recorded.recording(process.pid)
    first = origins(recording, recent(recording))[0]
    bare = what == "--strip-all"
    headline = first.frames[first.headline].function
    assert re.fullmatch(r"client\+0x[0-9a-f]+", headline) if bare else headline == QUERY
    assert any(name.startswith("client+0x") for name in names(first)) is bare


@pytest.mark.parametrize("version", SUPPORTED)
def test_python_frames_stand_where_the_interpreter_ran_them(version: str, relay: Path, recorded: Any) -> None:
    process = recorded.start(SUPPORTED[version], building.PROGRAMS / "opens.py", relay)
    told = {number: (way, called) for way, number, called in map(json.loads, until_ready(process))}
    assert len(told) == 10
    recording = recorded.recording(process.pid)
    with Namer(recording) as namer:
        for number, (way, called) in told.items():
            (origin,) = namer.origins([number])
            ran = [frame for frame in origin.frames if frame.language == "python"]
            assert [[frame.function.rpartition(".")[2], frame.file, frame.line] for frame in ran] == called, way
            assert origin.frames[origin.headline] == ran[0]
            assert ran[0].function == "open_it"
            native = [frame.function for frame in origin.frames if frame.language == "native"]
            assert not [name for name in native if "Eval" in name or "ectorcall" in name or "FastCall" in name], way
            assert origin.frames[-1].function in ("<module>", "_bootstrap", "Thread._bootstrap"), names(origin)
            if way == "relay":
                where = {frame.function: index for index, frame in enumerate(origin.frames)}
                assert where["open_it"] < where["through_c"] < where["relay"] < where["main"]
                line = building.line_of("return call(number)", "relay.c")
                assert (origin.frames[where["relay"]].file, origin.frames[where["relay"]].line) == (str(RELAY), line)
            else:  # all that is native is what the innermost Python function called
                assert all(frame.language == "native" for frame in origin.frames[: len(native)])


def test_a_number_without_a_stack_has_no_origin(client: Path, recorded: Any) -> None:
    process = recorded.start(client)
    until_ready(process)
    recording = recorded.recording(process.pid)
    assert origins(recording, [0, 1, 2, 99_999]) == ()
    assert by_headline(()) == ()


def test_naming_leaves_no_descriptor_open(client: Path, recorded: Any) -> None:
    process = recorded.start(client)
    until_ready(process)
    recording = recorded.recording(process.pid)
    before = sorted(os.listdir("/proc/self/fd"))
    assert origins(recording, recent(recording))
    assert sorted(os.listdir("/proc/self/fd")) == before
