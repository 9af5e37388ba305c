"""datacenter.testing: brokers, services and clients as real processes, for your tests and for ours.

    with Launcher(cwd=tmp_path) as launch:
        broker = launch.broker()
        greeter = launch.service("greeter:greeter", broker)
        with Client(broker.address) as client:
            assert client.call("greeter.hello", "Ann") == "Hello, Ann!"
            greeter.kill()                                  # an outage
            greeter = launch.service("greeter:greeter", broker)

    with Ensemble(tmp_path, servers=3) as ensemble:             # real ZooKeeper servers: zookeeper.py
        broker = launch.broker(options=["--registry", ensemble.url("/test")])

Nothing is a stand-in: each is the `datacenter` command or a program of yours. A start returns when the process has said
that it is ready, or raises with what it said instead. Every process is ended by its pid when the launcher is left, and
by the kernel when the launching process dies.
"""

from datacenter.testing.families import Relative, family_of, named, sockets_of
from datacenter.testing.launcher import Launcher, RunningBroker, RunningService
from datacenter.testing.ports import free_port
from datacenter.testing.processes import NotReadyError, Process
from datacenter.testing.zookeeper import Ensemble, ZooKeeperServer

__all__ = [
    "Ensemble",
    "Launcher",
    "NotReadyError",
    "Process",
    "Relative",
    "RunningBroker",
    "RunningService",
    "ZooKeeperServer",
    "family_of",
    "free_port",
    "named",
    "sockets_of",
]
