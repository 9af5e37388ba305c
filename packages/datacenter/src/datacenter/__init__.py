"""datacenter: services find each other and talk over ZeroMQ, and account for every descriptor they open."""

__version__ = "0.1.0"
