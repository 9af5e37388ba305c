"""Incident E put right: whoever removes a server closes its reader. No clean-up waits for an event.

python -m casebook.e_reader_leaked.fixed
"""

from __future__ import annotations

from casebook.e_reader_leaked import broken


class Servers(broken.Servers):
    """Servers whose removal is over when `remove` returns. An event of one that is gone finds no reader."""

    def remove(self, name: str) -> None:
        """Stops the monitor while it can be read, closes the reader, then the socket."""
        server = self.servers.pop(name)
        server.socket.disable_monitor()
        self.poller.unregister(server.reader)
        del self.readers[server.reader]
        server.reader.close()
        server.socket.close()


if __name__ == "__main__":
    broken.main(Servers)
