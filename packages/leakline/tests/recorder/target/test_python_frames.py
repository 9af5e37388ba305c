"""The walk of Python frames inside each installed interpreter, compared with what that interpreter says of itself."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

HERE = Path(__file__).parent
TARGET = Path(__file__).parents[3] / "src/leakline/recorder/target"
SOURCES = [str(path) for path in sorted(TARGET.glob("python_*.c"))]
SOURCES += [str(TARGET / f"unwind_{part}.c") for part in ("find", "libraries", "symbols")]
PYTHON_CUT = 2
MOST = 32


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


INTERPRETERS: dict[str, Path] = _load("interpreters").interpreters()
SUPPORTED = {version: path for version, path in INTERPRETERS.items() if version != "2.7"}


@pytest.fixture(scope="session")
def harness(tmp_path_factory: pytest.TempPathFactory) -> Path:
    library = tmp_path_factory.mktemp("harness") / "harness.so"
    build(library)
    return library


def build(library: Path, *more: str) -> None:
    flags = ["-std=gnu11", "-O2", "-g", *more, "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", "-fvisibility=hidden"]
    sources = [str(HERE / "python_harness.c"), *SOURCES]
    command = ["cc", *flags, "-fno-omit-frame-pointer", f"-I{TARGET}", "-o", str(library), *sources, "-pthread"]
    subprocess.run(command, check=True)


def run(python: Path, harness: Path, program: str, *arguments: str, **more: str) -> str:
    environment = {**os.environ, **more, "LEAKLINE_TEST_HARNESS": str(harness), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [str(python), "-W", "ignore", str(HERE / program), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def compare(record: dict[str, Any]) -> None:
    """Frame by frame, from the caller of `check` outwards."""
    said, seen = record["python"], record["recorder"]
    assert record["own"] == "check"
    assert bool(record["flags"] & PYTHON_CUT) == (len(said) + 1 > MOST), record
    assert record["flags"] & ~PYTHON_CUT == 0
    assert [(f["file"], f["name"], f["first_line"], f["instruction"]) for f in seen] == [
        (f["file"], f["name"], f["first_line"], f["instruction"]) for f in said[: MOST - 1]
    ]
    outer_interpreter = record["label"] == "sub-interpreter"  # its frames are not Python's answer here
    if not record["flags"] and record["evaluations"] >= 0 and not outer_interpreter:
        assert record["entries"] == record["evaluations"]


@pytest.mark.parametrize("version", SUPPORTED)
def test_frames_are_those_that_python_tells(version: str, harness: Path) -> None:
    told = json.loads(run(SUPPORTED[version], harness, "python_scenes.py"))
    major, minor = version.split("-")[0].split(".")
    assert told["version"] >> 16 == int(major) << 8 | int(minor)
    assert len(told["records"]) > 100
    for record in told["records"]:
        compare(record)


@pytest.mark.parametrize("version", [version for version in INTERPRETERS if version == "2.7"])
def test_python_2_gives_no_frames(version: str, harness: Path) -> None:
    told = json.loads(run(INTERPRETERS[version], harness, "python_scenes.py"))
    assert told["version"] == 0
    assert {(len(record["recorder"]), record["flags"]) for record in told["records"]} == {(0, 0)}


@pytest.mark.parametrize("version", SUPPORTED)
def test_frames_in_odd_places(version: str, harness: Path) -> None:
    """Foreign threads, sub-interpreters, exit handlers, destructors at the end, beside a daemon thread that goes on."""
    records = [json.loads(line) for line in run(SUPPORTED[version], harness, "python_scenes_odd.py").splitlines()]
    for record in records:
        compare(record)
    expected = {"foreign thread", "after the sub-interpreter", "atexit", "del at the end"}
    if tuple(map(int, version.split("-")[0].split("."))) >= (3, 8):
        expected.add("sub-interpreter")
    assert {record["label"] for record in records} == expected


INSIDE = """
import sys
sys.path.insert(0, {folder!r})
import os
os.environ["LEAKLINE_TEST_HARNESS"] = {harness!r}
import ctypes, python_probe
def inside():
    origin = python_probe.Origin()
    python_probe.detached.capture_at(ctypes.byref(origin), ctypes.c_uint64(origin.generation))
    names = [python_probe.described(frame)["name"] for frame in origin.python[: origin.python_count]]
    assert names == ["inside", "<module>"], names
inside()
"""


@pytest.mark.parametrize("version", [version for version in ("3.7", "3.11", "3.13") if version in SUPPORTED])
def test_interpreter_that_is_loaded_later_and_unloaded(version: str, harness: Path, tmp_path: Path) -> None:
    folder = SUPPORTED[version].parents[1]
    (library,) = (folder / "lib").glob(f"libpython{version}*.so.1.0")
    program = tmp_path / "embedder"
    flags = ["-Wall", "-Wextra", "-Werror", f"-I{TARGET}", "-o", str(program)]
    subprocess.run(["cc", *flags, str(HERE / "python_embedder.c"), "-ldl"], check=True)
    inside = INSIDE.format(folder=str(HERE), harness=str(harness))
    environment = {**os.environ, "PYTHONHOME": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [str(program), str(harness), str(library), inside]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stdout + done.stderr


@pytest.mark.parametrize("version", [version for version in ("3.6", "3.11", "3.13") if version in SUPPORTED])
def test_names_of_short_lived_code_objects_are_right(version: str, harness: Path) -> None:
    """A sample of `make hold-python-frames`."""
    told = json.loads(run(SUPPORTED[version], harness, "python_soak.py", "0.7", "1000"))
    judge(told)


def judge(told: dict[str, Any]) -> None:
    made, signals = told["made"], told["signals"]
    assert made["wrong"] == made["unknown"] == signals["wrong"] == 0, told
    assert made["same_addresses"] > made["made"] / 10, "no memory was used again: nothing was tested"
    assert signals["deep"] > 10


@pytest.mark.parametrize("version", [version for version in ("3.11",) if version in SUPPORTED])
def test_nothing_is_read_that_was_freed(version: str, tmp_path: Path) -> None:
    """Under ASan and UBSan, with Python's own objects from malloc."""
    harness = tmp_path / "harness.so"
    build(harness, "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    names = ("libasan.so", "libubsan.so")
    ask = [["cc", f"-print-file-name={name}"] for name in names]
    preload = ":".join(
        subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip() for command in ask
    )
    more = {"LD_PRELOAD": preload, "ASAN_OPTIONS": "detect_leaks=0", "PYTHONMALLOC": "malloc"}
    told = json.loads(run(SUPPORTED[version], harness, "python_soak.py", "0.5", "1000", **more))
    assert told["made"]["made"] > 50
    assert told["made"]["wrong"] == told["made"]["unknown"] == told["signals"]["wrong"] == 0, told
