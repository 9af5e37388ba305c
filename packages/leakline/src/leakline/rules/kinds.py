"""What it mostly means when descriptors of one kind pile up, and what to change: a table, a story for each kind.

Kinds that have a better story, told by where their descriptors lead (accepted, outgoing, deleted, to dead children),
have findings of their own.
"""

from __future__ import annotations

import msgspec

_POOL = "A pool or a cache is still filling: observe for longer than it takes to fill."
_OWNER = "Give each one an owner that closes it on every path, also when an error is raised"


class Story(msgspec.Struct, frozen=True):
    """Cause, remedy and when it is harmless, each a sentence or two."""

    cause: str
    remedy: str = f"{_OWNER}."
    harmless: str = _POOL


OTHER = Story("They are opened and not closed.")
_BPF = Story(
    "BPF objects are loaded per use, and their descriptors kept: each also pins the object in the kernel.",
    f"{_OWNER}; what must outlive the program is pinned in /sys/fs/bpf instead.",
    "A tracer attaches to more places: it ends at their number.",
)
STORIES = {
    "tcp": Story(
        "Connections (or accepted ones) are opened and not closed: a client made per request, an error path without"
        " close(), a pool without a bound."
    ),
    "udp": Story(
        "A datagram socket is made per message or per lookup and not closed.",
        "Keep one socket for the process, or close it on every path (`with socket.socket(AF_INET, SOCK_DGRAM) as s:`).",
    ),
    "unix": Story(
        "Local sockets are opened and not closed: a socketpair per task, a connection to a local daemon per request."
    ),
    "socket": Story("Sockets are made and neither bound nor connected, nor closed: most often an error path."),
    "eventfd": Story(
        "Objects that own an eventfd are made and not destroyed: an event loop or a ZeroMQ socket per request, or a"
        " ZeroMQ socket that was closed but that libzmq cannot reap."
    ),
    "epoll": Story(
        "An event loop or a selector is made per request and not closed.",
        "Make one event loop per thread and keep it: asyncio.run() closes its own, new_event_loop() needs loop.close()"
        " (`with contextlib.closing(asyncio.new_event_loop()) as loop:`).",
        "Threads with a loop each are still being started.",
    ),
    "pipe": Story(
        "Pipes are opened and not closed: a child process per task whose streams nobody closes, or a self-pipe each.",
        "Read to the end and close: `subprocess.run(…)`, or `with subprocess.Popen(…) as child:`.",
        "Children are still being started, and live on.",
    ),
    "file": Story(
        "Files are opened and not closed.",
        "`with open(path) as file:` around each use; in C, fclose() on every path out of the function.",
    ),
    "directory": Story(
        "Directories are opened and not closed: os.scandir() whose loop is left early, opendir() without closedir().",
        "`with os.scandir(path) as entries:`; closedir() on every path.",
        "A watcher opens each directory of a tree: it ends at their number.",
    ),
    "inotify": Story(
        "A file watcher is made per use and not closed. There is also a limit per user: max_user_instances, 128 by"
        " default; the next program of this user gets EMFILE from inotify_init().",
        "Keep one instance and add watches to it (inotify_add_watch); stop an observer when its use ends.",
    ),
    "timerfd": Story(
        "A timer is made per task and not closed: a disarmed one is still open.",
        "Keep one timer and set it anew (timerfd_settime), or close it when the task ends.",
    ),
    "signalfd": Story("A signalfd is made per child or per loop and not closed.", "Keep one for the process."),
    "pidfd": Story(
        "A handle per child process is opened and not closed after the child was waited for.",
        "close(pidfd) after waitid(P_PIDFD, …), on every path.",
        "As many children are alive.",
    ),
    "memfd": Story(
        "Shared memory is made and not closed: a buffer per message or per frame. Its pages stay in memory with it.",
        "Close it after mmap(), which keeps the memory by itself; munmap() ends it.",
        "A pool of buffers is still filling.",
    ),
    "dmabuf": Story("Graphics buffers are made, or received, and not closed; their memory stays with them."),
    "pty": Story(
        "Terminals are opened for children and not closed after these have ended: both sides, or only the master.",
        "Close the slave in the parent right after the fork, and the master when its read fails with EIO.",
        "Sessions are still being opened by people.",
    ),
    "io_uring": Story(
        "A ring is made per request or per thread and not torn down; its memory stays with it.",
        "Keep one ring per thread; io_uring_queue_exit() when the thread ends.",
    ),
    "perf-event": Story(
        "Performance counters are opened per measurement and not closed; each costs a hardware counter or a share.",
        "Disable and close each counter after it was read.",
        "A profiler opens one per thread and CPU: it ends at their number.",
    ),
    "bpf-map": _BPF,
    "bpf-prog": _BPF,
    "bpf-link": _BPF,
    "bpf_link": _BPF,
    "namespace": Story(
        "Handles of namespaces (/proc/PID/ns/…) are opened per container and not closed; each keeps its namespace"
        " alive."
    ),
    "netlink": Story(
        "A netlink socket is made per lookup (interfaces, routes, getaddrinfo in an own resolver) and not closed.",
        "Keep one, or close it on every path.",
    ),
}
