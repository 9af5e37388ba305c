"""This very process, looked at from inside: what it opened since a moment, which line did, and which object keeps it.

`leakline.no_leak` and the pytest plugin stand on this. Other processes are looked at from outside: `leakline.observe`.
"""
