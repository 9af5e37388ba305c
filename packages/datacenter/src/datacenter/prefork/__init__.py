"""Families of processes: workers that are forked from a server that never connects to anything, a watcher that holds
the one session with the registry, a supervisor that keeps them all.

    supervisor  (supervisor.py)   decides by pool.py and book.py, which are pure
      | pipe, pidfd
      +-- fork server (fork_server.py)    started by exec; imports, forks, connects to nothing
      +-- watcher     (watcher.py)        forked; the registry's session, for all
      +-- worker-1    (worker.py)         forked; holds its standard streams and its pipe
      +-- worker-2

What the processes say to each other is in messages.py. `datacenter serve --workers` is serving.py; what else wants
workers brings a `Plan` of its own. docs/prefork.md tells what happens when any of them dies.
"""
