"""``redis://`` keeps the contract of all logs, against a real server, and what a server brings."""

from __future__ import annotations

import pytest

from sse_broker.logs.redis import RedisLog
from tests.live.conftest import need
from tests.live.redis_server import RedisServer
from tests.logs.contract import LogContract

pytestmark = pytest.mark.live

AOF = ("--appendonly", "yes", "--appendfsync", "everysec")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = RedisServer(need("redis-server", "redis-server"), tmp_path_factory.mktemp("redis"))
    yield server.start()
    server.stop()


class TestRedisLog(LogContract):
    @pytest.fixture(autouse=True)
    def _server(self, server):
        server.command("FLUSHALL")
        self.server = server

    @pytest.fixture(autouse=True)
    def _log(self, _server, tmp_path):
        yield from super()._log.__wrapped__(self, tmp_path)

    def make(self, tmp_path) -> RedisLog:
        return RedisLog(self.server.url)
