"""The launcher of ZooKeeper servers: ready when it returns, data kept over a kill, gone afterwards."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from datacenter.testing import Ensemble


def test_a_server_is_ready_can_be_killed_and_comes_back_and_is_gone_at_the_end(tmp_path: Path) -> None:
    with Ensemble(tmp_path) as ensemble:
        (server,) = ensemble.servers
        assert ensemble.leader() is server
        assert ensemble.url("/a") == f"zookeeper://127.0.0.1:{server.port}/a"
        assert server.ask("ruok") == "imok"
        server.kill()
        assert server.mode() == ""
        server.start()
        ensemble.wait_ready()
        assert server.connections() == []
        pid = server.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
