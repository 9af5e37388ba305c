"""ForkServers, with a real fork server behind it: what the supervisor is told, and how often."""

from __future__ import annotations

import asyncio

from msgspec import Raw

from datacenter.errors import DatacenterError
from datacenter.prefork import messages
from datacenter.prefork.children import Child
from datacenter.prefork.fork_servers import ForkServers
from datacenter.prefork.serving import Settings
from datacenter.sockets.ledger import Ledger


class _Supervisor:
    def __init__(self) -> None:
        self.failures: list[DatacenterError] = []

    def everybody(self) -> list[Child]:
        return []

    def not_forked(self, message: messages.NotForked) -> None:
        raise AssertionError(message)

    def not_prepared(self, error: DatacenterError) -> None:
        self.failures.append(error)

    def renewed(self) -> None:
        raise AssertionError("it never was prepared")


def test_why_the_code_cannot_be_imported_is_told_once_and_not_that_its_importer_was_killed_then() -> None:
    supervisor = _Supervisor()
    settings = Settings(broker="tcp://127.0.0.1:1", targets=["nowhere:shop"], listen="tcp://127.0.0.1:0")
    prepare = messages.Prepare("datacenter.prefork.serving:prepare", Raw(messages.encode(settings)), 1.0)

    async def until_it_has_ended(servers: ForkServers) -> None:
        while servers.pids:  # noqa: ASYNC110 - that a process has ended is what is waited for
            await asyncio.sleep(0.01)

    async def main() -> None:
        servers = ForkServers(prepare, supervisor, ledger)
        servers.tick(asyncio.get_running_loop().time())
        try:
            await asyncio.wait_for(until_it_has_ended(servers), 60)
        finally:
            servers.close()

    ledger = Ledger.open()
    try:
        asyncio.run(main())
    finally:
        ledger.close()
    assert [error.message for error in supervisor.failures] == ["there is no module 'nowhere'"]
