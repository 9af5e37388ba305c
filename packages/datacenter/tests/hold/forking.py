"""A process with a Client forks; both go on. Arguments: BROKER. Each line of output is one thing that did not hold;
"done" at the end.
"""

from __future__ import annotations

import os
import sys
import threading
import traceback
import warnings

from datacenter import Client
from datacenter.errors import ForkedError

CALLS = 200
warnings.filterwarnings("ignore", ".*fork", DeprecationWarning)  # since Python 3.12 of any fork beside threads


def in_child(client: Client, broker: str) -> None:
    inherited = sockets()
    for name, use in (
        ("call", lambda: client.call("shop.pid")),
        ("submit", lambda: client.submit("shop.pid")),
        ("resolve", lambda: client.resolve("shop")),
    ):
        try:
            use()
            print(f"{name} of the parent's client did not raise in the child")
        except ForkedError:
            pass
        except BaseException as error:
            print(f"{name} of the parent's client raised {error!r} in the child")
    if inherited:
        print(f"the child still has the parent's sockets: {inherited}")
    with Client(broker) as own:
        for number in range(CALLS):
            if own.call("shop.add", number, 1, deadline_s=10) != number + 1:
                print("a wrong answer in the child")


def sockets() -> list[str]:
    """Sockets, eventfds and epolls that are open here."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue
        if target.startswith(("socket:", "anon_inode:[event")):
            found.append(f"{name} {target}")
    return found


def main() -> None:
    broker = sys.argv[1]
    with Client(broker) as client:
        client.call("shop.pid")
        before = sockets()
        for _ in range(3):
            busy = [threading.Thread(target=client.call, args=("shop.wait", 0.3)) for _ in range(4)]
            for thread in busy:
                thread.start()  # calls are in flight, and the reactor is at work, while the process forks
            child = os.fork()
            if not child:
                status = 1
                try:
                    in_child(client, broker)
                    status = 0
                except BaseException:
                    traceback.print_exc(file=sys.stdout)
                sys.stdout.flush()
                os._exit(status)
            for number in range(CALLS):
                if client.call("shop.add", number, 1, deadline_s=10) != number + 1:
                    print("a wrong answer in the parent")
            for thread in busy:
                thread.join()
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            if status:
                print(f"the child ended with status {status}")
        if sockets() != before:
            print(f"the parent's sockets: {before} before, {sockets()} after")
    print("done")


if __name__ == "__main__":
    main()
