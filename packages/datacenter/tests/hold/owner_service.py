"""A leased service that writes down, a line of JSON each, until when it knows that its lease holds.

python owner_service.py BROKERS LISTEN
"""

from __future__ import annotations

import asyncio
import json
import sys

from datacenter import Server, Service, ServiceOptions, clock
from datacenter.session import Session

owner = Service("owner", leased=True)
serving: list[Server] = []


def lease() -> tuple[str, int, float]:
    """(id, epoch, until when it holds) of this process's instance."""
    server = serving[0]
    session = server._own_session
    assert isinstance(session, Session)
    instance_id = server._instances["owner"].id
    registration = session._registrations.get(instance_id)
    epoch = registration.epoch if registration is not None else None
    return instance_id, epoch or 0, clock.now() + server.lease_left_s("owner")


@owner.method(idempotent=True)
async def whoami() -> list[object]:
    instance_id, epoch, _ = lease()
    return [instance_id, epoch, clock.now()]


async def main(brokers: str, listen: str) -> None:
    async with Server(owner, broker=brokers, listen=listen, options=ServiceOptions(drain_s=0)) as server:
        serving.append(server)
        print(json.dumps({"serving": lease()[0]}), flush=True)
        known = 0.0
        while True:
            at = clock.now()
            instance_id, _, until = lease()
            if until > at and until > known + 0.001:
                known = until
                print(json.dumps({"held": instance_id, "at": at, "until": until}), flush=True)
            await asyncio.sleep(0.01)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
