"""Clients: `AsyncClient` in the caller's event loop, `Client` for threads. Both find services by name and call them."""

from datacenter.client.asynchronous import AsyncClient
from datacenter.client.route import DEFAULT_BROKER, ClientOptions, StateEvent
from datacenter.client.threaded import Client

__all__ = ["DEFAULT_BROKER", "AsyncClient", "Client", "ClientOptions", "StateEvent"]
