"""The batch put right: each picture is closed when its thumbnail is made.

python thumbnails_fixed.py PICTURES
"""

from __future__ import annotations

import resource
import sys
import zlib

LIMIT = 100  # 1 024, in real life
WORTH = 40_000  # the work of a picture: some milliseconds


def thumbnail() -> bytes:
    with open("/etc/hostname", "rb") as picture:
        return zlib.compress(picture.read(16) * WORTH, 9)


def main() -> int:
    resource.setrlimit(resource.RLIMIT_NOFILE, (LIMIT, LIMIT))
    for _picture in range(int(sys.argv[1])):
        thumbnail()
    return 0


if __name__ == "__main__":
    sys.exit(main())
