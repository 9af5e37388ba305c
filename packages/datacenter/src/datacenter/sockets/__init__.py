"""sockets/: the only code that makes or closes a ZeroMQ socket."""

from datacenter.sockets.context import CloseReport, ContextStatistics, SocketContext
from datacenter.sockets.events import MonitorEvent
from datacenter.sockets.hub import HubStatistics, MonitorHub
from datacenter.sockets.options import SocketOptions
from datacenter.sockets.owned import OwnedSocket, SocketStatistics

__all__ = [
    "CloseReport",
    "ContextStatistics",
    "HubStatistics",
    "MonitorEvent",
    "MonitorHub",
    "OwnedSocket",
    "SocketContext",
    "SocketOptions",
    "SocketStatistics",
]
