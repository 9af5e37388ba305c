"""datacenter: services find each other and talk over ZeroMQ, and account for every descriptor they open.

    greeter = Service("greeter")            with Client() as client:
                                                client.call("greeter.hello", "Ann")
    @greeter.method
    def hello(name: str) -> str: …

`datacenter up` starts the broker, `datacenter serve module:greeter` the service.

Each name is imported when it is first asked for: the command line, a fork server or a client alone needs few of them,
and all together take most of a second on a slow machine.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datacenter.broker import Broker, BrokerOptions
    from datacenter.client import AsyncClient, Client, ClientOptions, StateEvent
    from datacenter.dispatcher import ServiceOptions
    from datacenter.errors import DatacenterError
    from datacenter.server import Server, serve
    from datacenter.service import Service
    from datacenter.version import __version__

__all__ = [
    "AsyncClient",
    "Broker",
    "BrokerOptions",
    "Client",
    "ClientOptions",
    "DatacenterError",
    "Server",
    "Service",
    "ServiceOptions",
    "StateEvent",
    "__version__",
    "serve",
]

_MODULES = {
    "AsyncClient": "client",
    "Broker": "broker",
    "BrokerOptions": "broker",
    "Client": "client",
    "ClientOptions": "client",
    "DatacenterError": "errors",
    "Server": "server",
    "Service": "service",
    "ServiceOptions": "dispatcher",
    "StateEvent": "client",
    "__version__": "version",
    "serve": "server",
}


def __getattr__(name: str) -> object:
    """PEP 562: a name of `__all__` that was not asked for before."""
    if name not in _MODULES:
        raise AttributeError(f"module 'datacenter' has no attribute {name!r}")
    found = getattr(importlib.import_module(f"datacenter.{_MODULES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
