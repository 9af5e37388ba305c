"""Small C programs to attach to, and libraries to load into them, compiled once a session."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
VICTIM = HERE.parent / "native" / "victim.c"
LIBRARY = ("-shared", "-fPIC", "-fvisibility=default")


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the programs of this folder, `called.so`, and libraries that open descriptors."""
    folder = tmp_path_factory.mktemp("attach")
    for name in ("waits", "busy", "spin"):
        compile_c(HERE / f"{name}.c", folder / name)
    compile_c(HERE / "imports.c", folder / "imports", "-fno-plt", "-Wl,-z,now", "-Wl,-z,relro", "-fPIE", "-pie")
    compile_c(HERE / "called.c", folder / "called.so", "-shared", "-fPIC", "-fvisibility=hidden")
    compile_c(VICTIM, folder / "lazy.so", *LIBRARY, "-Wl,-z,lazy")
    compile_c(VICTIM, folder / "now.so", *LIBRARY, "-fno-plt", "-Wl,-z,now", "-Wl,-z,relro")
    compile_c(VICTIM, folder / "later.so", *LIBRARY, "-fno-plt", "-Wl,-z,now", "-Wl,-z,relro")
    compile_c(HERE / "waits.c", folder / "static", "-static")
    marked = folder / "marked.c"
    marked.write_text(
        'const char mark[] __attribute__((used)) = "\\xff Go buildinf:";\n' + (HERE / "waits.c").read_text()
    )
    compile_c(marked, folder / "go", "-static")
    loader = folder / "ld-musl-x86_64.so.1"  # its name alone is musl's
    loader.symlink_to("/lib64/ld-linux-x86-64.so.2")
    compile_c(HERE / "waits.c", folder / "musl", f"-Wl,--dynamic-linker={loader}")
    return folder


def compile_c(source: Path, result: Path, *options: str) -> None:
    subprocess.run(["cc", "-O1", "-g", "-Wall", *options, "-o", result, source, "-pthread"], check=True)
