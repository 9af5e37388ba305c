"""Servers that know nothing of datacenter: `watchdog` registers them while they are healthy.

They are of the type `foreign` in the registry: an address, and what its health is; they have no methods to call.
"""
