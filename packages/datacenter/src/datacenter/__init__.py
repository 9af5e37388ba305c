"""datacenter: services find each other and talk over ZeroMQ, and account for every descriptor they open.

    greeter = Service("greeter")            with Client() as client:
                                                client.call("greeter.hello", "Ann")
    @greeter.method
    def hello(name: str) -> str: …

`datacenter up` starts the broker, `datacenter serve module:greeter` the service.
"""

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
