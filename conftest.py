"""What every test begins with."""

from __future__ import annotations

import signal

# A shell without job control starts what it puts into the background (`make test &`) with SIGINT ignored, and so would
# be every process that a test starts to interrupt it.
signal.signal(signal.SIGINT, signal.default_int_handler)
