"""An application for gunicorn: reads a file, and asks a child process now and then."""

import subprocess
from collections.abc import Callable, Iterable
from itertools import count

NUMBER = count()


def app(_environment: dict[str, object], begin: Callable[..., object]) -> Iterable[bytes]:
    with open("/etc/passwd", "rb") as file:
        text = file.read(200)
    if next(NUMBER) % 20 == 0:
        text += subprocess.run(["/bin/echo", "hello"], stdout=subprocess.PIPE, check=True).stdout
    begin("200 OK", [("Content-Type", "text/plain")])
    return [text]
