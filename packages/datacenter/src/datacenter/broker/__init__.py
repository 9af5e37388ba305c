"""The broker: the process started by `datacenter up`. `sessions` decides who is there (pure); `server` does the I/O."""

from datacenter.broker.server import Broker, BrokerOptions

__all__ = ["Broker", "BrokerOptions"]
