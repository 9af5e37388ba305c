"""A batch that opens each picture once and keeps it; with more pictures than descriptors it dies before its end.

python thumbnails.py PICTURES
"""

from __future__ import annotations

import resource
import sys
import zlib
from typing import BinaryIO

LIMIT = 100  # 1 024, in real life
WORTH = 40_000  # the work of a picture: some milliseconds
done: dict[int, BinaryIO] = {}


def thumbnail(picture: int) -> bytes:
    done[picture] = open("/etc/hostname", "rb")  # noqa: SIM115  # casebook: picture
    return zlib.compress(done[picture].read(16) * WORTH, 9)


def main() -> int:
    resource.setrlimit(resource.RLIMIT_NOFILE, (LIMIT, LIMIT))
    try:
        for picture in range(int(sys.argv[1])):
            thumbnail(picture)
    except OSError as error:
        print(f"thumbnails: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
