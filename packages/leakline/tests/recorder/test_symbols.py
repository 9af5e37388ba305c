"""Names of native addresses, of real programs, beside what addr2line says of them."""

from __future__ import annotations

import lzma
import os
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from leakline.facts import Frame
from leakline.recorder.elf import ElfError, Symbols, open_elf, parse_elf, symbol_tables
from leakline.recorder.recording import Library
from leakline.recorder.symbols import Symbolizer

SOURCE = """
#include <unistd.h>
namespace app {
struct Text { const char *start; int size; };
template <class T> struct Cache {
    T kept[8];
    int size = 0;
    static int deep(int number) { return dup(number); }
    int shallow(int number) { return deep(number) + 1; }
    __attribute__((noinline)) int open(T value) {
        kept[size++ & 7] = value;
        return shallow(size) + 2;
    }
};
namespace { __attribute__((noinline)) int hidden(Cache<int> &cache) { return cache.open(3) + cache.open(4); } }
__attribute__((noinline)) int named(const Text &text) { return dup(text.size) + 1; }
}
extern "C" __attribute__((noinline, visibility("default"))) int exported(int number) {
    app::Cache<int> ints;
    app::Cache<app::Text> texts;
    return app::hidden(ints) + texts.open({"a", 1}) + app::named({"b", 2}) + number;
}
int main(int count, char **) { return exported(count) > 100000; }
"""
VARIANTS = {
    "dwarf 5": ["-gdwarf-5"],
    "dwarf 4": ["-gdwarf-4"],
    "fixed address": ["-g", "-no-pie"],
    "compressed": ["-g", "-gz=zlib"],
    "unoptimised": ["-g", "-O0"],
    "link time optimised": ["-g", "-flto"],
}


def build(compiler: str, output: Path, *words: str | Path) -> Path:
    done = subprocess.run([compiler, "-o", output, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return output


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    folder = tmp_path_factory.mktemp("symbols")
    source = folder / "cache.cpp"
    source.write_text(SOURCE)
    made = {
        name: build("c++", folder / name.replace(" ", "-"), "-O2", *flags, source) for name, flags in VARIANTS.items()
    }
    made["library"] = build(
        "c++", folder / "libcache.so.1", "-O2", "-g", "-fPIC", "-shared", "-fvisibility=hidden", source
    )
    return made


def library(path: Path, *, build_id: bytes | None = None) -> Library:
    """As if it was mapped at 0."""
    if build_id is None:
        elf, descriptor = open_elf(str(path))
        os.close(descriptor)
        build_id = elf.build_id
    return Library(number=1, path=str(path), start=0, end=1 << 40, bias=0, build_id=build_id)


def return_addresses(path: Path) -> list[int]:
    """The instructions after each call in the program's own functions."""
    text = subprocess.run(
        ["objdump", "-d", "--no-show-raw-insn", path], capture_output=True, text=True, check=True
    ).stdout
    found: list[int] = []
    for function in text.split("\n\n"):
        if not re.match(r"[0-9a-f]+ <(_ZN3app|_ZN12_GLOBAL|exported|main(\.\w+)?>)", function.strip()):
            continue
        lines = function.strip().splitlines()
        called = [index for index, line in enumerate(lines[:-1]) if "\tcall" in line]
        found += [int(lines[index + 1].partition(":")[0], 16) for index in called]
    assert found
    return found


def addr2line(path: Path, addresses: list[int]) -> dict[int, list[tuple[str, str, int]]]:
    command = ["addr2line", "-a", "-i", "-f", "-C", "-e", path, *(hex(address - 1) for address in addresses)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    said: dict[int, list[tuple[str, str, int]]] = {}
    for block in re.split(r"^(?=0x[0-9a-f]+$)", text, flags=re.MULTILINE)[1:]:
        address, *lines = block.splitlines()
        places = [line.split(" (discriminator")[0].rsplit(":", 1) for line in lines[1::2]]
        said[int(address, 16) + 1] = [
            (
                re.sub(r" ?\[clone .*|\.(isra|part|constprop|cold|lto_priv)\b.*", "", function),
                # The unit's name after link time optimisation, which addr2line takes for its first file's.
                os.path.normpath(file.replace(f"{os.getcwd()}/<artificial>", str(path.with_name("cache.cpp")))),
                int(line),
            )
            for function, (file, line) in zip(lines[::2], places, strict=True)
        ]
    return said


def told(frames: tuple[Frame, ...]) -> list[tuple[str, str, int]]:
    return [(frame.function, frame.file, frame.line) for frame in frames]


@pytest.mark.parametrize("name", [*VARIANTS, "library"])
def test_every_call_has_the_functions_files_and_lines_of_addr2line(name: str, programs: dict[str, Path]) -> None:
    addresses = return_addresses(programs[name])
    expected = addr2line(programs[name], addresses)
    with Symbolizer({1: library(programs[name])}) as symbolizer:
        for address in addresses:
            assert told(symbolizer.frames(address, 1)) == expected[address], hex(address)
        assert symbolizer.notes == []
    if name != "unoptimised":
        assert max(map(len, expected.values())) >= 3  # inlined ones are among them


@pytest.mark.parametrize("way", ["build id", "debug link", "debug link without build ids"])
def test_debug_information_in_a_file_of_its_own(way: str, programs: dict[str, Path], tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    shutil.copy(programs["dwarf 5"], whole)
    if way.endswith("without build ids"):
        subprocess.run(["objcopy", "--remove-section=.note.gnu.build-id", whole], check=True)
    identity = library(whole).build_id.hex()
    debug = tmp_path / "program.debug"
    if way == "build id":
        debug = tmp_path / "debug/.build-id" / identity[:2] / f"{identity[2:]}.debug"
        debug.parent.mkdir(parents=True)
    stripped = tmp_path / "program"
    subprocess.run(["objcopy", "--only-keep-debug", whole, debug], check=True)
    link = [] if way == "build id" else [f"--add-gnu-debuglink={debug}"]
    subprocess.run(["objcopy", "--strip-all", *link, whole, stripped], check=True)
    addresses = return_addresses(whole)
    expected = addr2line(whole, addresses)
    with Symbolizer({1: library(stripped)}, debug_folders=[str(tmp_path / "debug")]) as symbolizer:
        for address in addresses:
            assert told(symbolizer.frames(address, 1)) == expected[address]
    debug.write_bytes(debug.read_bytes()[:-1] + b"x")  # the debug file of another build
    if way == "debug link without build ids":
        with Symbolizer({1: library(stripped)}) as symbolizer:
            assert symbolizer.frames(addresses[0], 1)[0].function.startswith("program+0x")


def test_a_stripped_library_has_its_exported_functions_and_offsets_for_others(
    programs: dict[str, Path], tmp_path: Path
) -> None:
    stripped = tmp_path / "libcache.so.1"
    subprocess.run(["strip", "-o", stripped, programs["library"]], check=True)
    elf, descriptor = open_elf(str(programs["library"]))
    symbols = Symbols(symbol_tables(elf))  # with exported.cold, which is not exported
    os.close(descriptor)
    named = {address: symbols.at(address - 1)[0] for address in return_addresses(programs["library"])}
    with Symbolizer({1: library(stripped)}) as symbolizer:
        for address, function in named.items():
            expected = "exported" if function == "exported" else f"libcache.so.1+0x{address:x}"
            assert told(symbolizer.frames(address, 1)) == [(expected, str(stripped), 0)]
    assert set(named.values()) > {"exported"}


def test_a_file_that_is_not_the_one_that_was_mapped_gives_offsets(programs: dict[str, Path], tmp_path: Path) -> None:
    address = return_addresses(programs["library"])[0]
    replaced = library(programs["library"], build_id=b"another build's")
    for wrong, reason in (
        (replaced, "was replaced since it was loaded"),
        (library(programs["library"], build_id=b""), "was replaced since it was loaded"),
        (Library(1, str(tmp_path / "libgone.so"), 0, 1 << 40, 0), "is not there any more"),
        (Library(1, str(Path(__file__)), 0, 1 << 40, 0), "not an ELF file"),
    ):
        with Symbolizer({1: wrong}) as symbolizer:
            (frame,) = symbolizer.frames(address, 1)
            assert (frame.function, frame.line) == (f"{Path(wrong.path).name}+0x{address:x}", 0)
            assert symbolizer.notes == [f"{wrong.path} {reason}: its functions are shown as offsets"]


def test_without_a_build_id_a_file_must_be_older_than_the_recording(programs: dict[str, Path], tmp_path: Path) -> None:
    plain = tmp_path / "libplain.so"
    subprocess.run(["objcopy", "--remove-section=.note.gnu.build-id", programs["library"], plain], check=True)
    address = return_addresses(plain)[0]
    changed = plain.stat().st_ctime
    for since, named in ((changed + 1, True), (changed - 1, False), (None, True)):
        with Symbolizer({1: library(plain)}, unchanged_since_s=since) as symbolizer:
            assert (symbolizer.frames(address, 1)[0].line > 0) is named


@pytest.mark.root
def test_a_program_of_a_container_is_found_in_its_own_tree(tmp_path: Path) -> None:
    source = tmp_path / "waits.c"
    source.write_text("#include <stdio.h>\nint main(void) { return getchar() != EOF; }\n")
    root = tmp_path / "root"
    root.mkdir()
    program = build("cc", root / "waits", "-g", "-static", "-no-pie", source)
    inside = library(program)
    (address,) = return_addresses(program)
    mapped = Library(1, "/waits", 0, 1, 0, inside.build_id)
    process = subprocess.Popen(["/waits"], stdin=subprocess.PIPE, preexec_fn=lambda: os.chroot(root))
    try:
        with Symbolizer({1: mapped}) as outside:
            assert outside.frames(address, 1)[0].function.startswith("waits+0x")
        with Symbolizer({1: mapped}, pid=process.pid) as symbolizer:
            assert told(symbolizer.frames(address, 1)) == [("main", str(source), 2)]
    finally:
        process.communicate(b"")


def test_an_address_in_no_library_is_itself() -> None:
    with Symbolizer({2: Library(2, "linux-vdso.so.1", 0, 8192, 0)}) as symbolizer:
        assert told(symbolizer.frames(0x7F00, 0)) == [("0x7f00", "", 0)]
        assert told(symbolizer.frames(0x7F0, 2)) == [("linux-vdso.so.1+0x7f0", "linux-vdso.so.1", 0)]
        assert symbolizer.notes == []


def test_a_program_that_only_keeps_a_table_loads_nothing_that_names() -> None:
    program = (
        "import leakline.recorder, sys; print([name for name in sys.modules if 'symbol' in name or 'lzma' in name])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_no_descriptor_is_left_open(programs: dict[str, Path]) -> None:
    before = os.listdir("/proc/self/fd")
    with Symbolizer({1: library(programs["library"])}) as symbolizer:
        symbolizer.frames(return_addresses(programs["library"])[0], 1)
    symbolizer.close()
    assert os.listdir("/proc/self/fd") == before


def test_without_the_library_for_lines_there_are_names(
    programs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "symbolic.debuginfo", None)
    path = programs["dwarf 5"]
    with Symbolizer({1: library(path)}) as symbolizer:
        frames = [symbolizer.frames(address, 1) for address in return_addresses(path)]
        assert {(len(frame), frame[0].file, frame[0].line) for frame in frames} == {(1, str(path), 0)}
        assert {"main", "exported"} <= {frame[0].function for frame in frames}
        assert len(symbolizer.notes) == 1
        assert "no lines of native functions" in symbolizer.notes[0]


def test_damaged_debug_information_leaves_the_names(programs: dict[str, Path], tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    content = bytearray(programs["dwarf 5"].read_bytes())
    elf = parse_elf(lambda offset, size: bytes(content[offset : offset + size]))
    section = elf.sections[".debug_abbrev"]
    content[section.offset : section.offset + section.size] = b"\xff" * section.size
    damaged.write_bytes(content)
    with Symbolizer({1: library(damaged)}) as symbolizer:
        frames = [symbolizer.frames(address, 1) for address in return_addresses(damaged)]
        assert {"main", "exported"} <= {frame[0].function for frame in frames}
        assert {frame[0].line for frame in frames} == {0}


FUNCTION, OBJECT = 2, 1


def table(*rows: tuple[str, int, int, int]) -> Symbols:
    """A symbol table of (name, kind, address, size)."""
    names, entries = b"\0", b""
    for name, kind, address, size in rows:
        entries += struct.pack("<IBBHQQ", len(names), kind, 0, 1, address, size)
        names += name.encode() + b"\0"
    return Symbols([(entries, names)])


def test_a_symbol_names_what_it_covers_and_nothing_after_it() -> None:
    symbols = table(("query", FUNCTION, 0x100, 0x20), ("state", OBJECT, 0x120, 0x20), ("label", FUNCTION, 0x140, 0))
    assert [symbols.at(at) for at in (0xFF, 0x100, 0x11F)] == [[], ["query"], ["query"]]
    assert [symbols.at(at) for at in (0x120, 0x13F, 0x140, 1 << 40)] == [[], [], [], []]


def test_the_innermost_symbol_and_the_plainest_of_its_names() -> None:
    symbols = table(
        ("whole", FUNCTION, 0x100, 0x100),
        ("__open64", FUNCTION, 0x140, 0x10),
        ("open@@GLIBC_2.2.5", FUNCTION, 0x140, 0x10),
        ("__open", FUNCTION, 0x140, 0x10),
        *((f"small_{n}", FUNCTION, 0x150 + n, 1) for n in range(8)),
    )
    assert symbols.at(0x145) == ["open", "__open", "__open64"]
    assert symbols.at(0x160) == ["whole"]
    assert symbols.at(0x152) == ["small_2"]


def test_the_small_symbol_table_of_a_stripped_library_of_fedora(programs: dict[str, Path], tmp_path: Path) -> None:
    mini, packed, stripped = (tmp_path / name for name in ("mini", "mini.xz", "libcache.so.1"))
    subprocess.run(["strip", "--strip-debug", "-o", mini, programs["library"]], check=True)
    packed.write_bytes(lzma.compress(mini.read_bytes()))
    subprocess.run(
        ["objcopy", "-S", f"--add-section=.gnu_debugdata={packed}", programs["library"], stripped], check=True
    )
    with Symbolizer({1: library(stripped)}) as symbolizer, Symbolizer({1: library(programs["library"])}) as whole:
        for address in return_addresses(programs["library"]):
            expected = whole.frames(address, 1, lines=False)[0].function
            assert told(symbolizer.frames(address, 1)) == [(expected, str(stripped), 0)]
    packed.write_bytes(b"not xz")
    subprocess.run(["objcopy", "--update-section", f".gnu_debugdata={packed}", stripped], check=True)
    with Symbolizer({1: library(stripped)}) as symbolizer:
        names = {symbolizer.frames(address, 1)[0].function for address in return_addresses(programs["library"])}
        assert "exported" in names
        assert all(name == "exported" or name.startswith("libcache.so.1+0x") for name in names)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=some.data())
def test_a_damaged_file_is_an_error_or_has_fewer_names(data: some.DataObject, programs: dict[str, Path]) -> None:
    content = bytearray(programs["library"].read_bytes())
    headers = int.from_bytes(content[40:48], "little")
    for _ in range(data.draw(some.integers(1, 8))):
        start = data.draw(some.sampled_from([0, 16, 64, headers]))
        content[min(len(content) - 1, start + data.draw(some.integers(0, 1200)))] = data.draw(some.integers(0, 255))
    damaged = bytes(content[: data.draw(some.sampled_from([len(content), headers, headers + 200, 40, 0]))])
    try:
        elf = parse_elf(lambda offset, size: damaged[offset : offset + size])
        assert isinstance(Symbols(symbol_tables(elf)).at(0x1200), list)
    except ElfError:
        pass
