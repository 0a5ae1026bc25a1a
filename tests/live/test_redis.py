"""``redis://`` keeps the contract of all logs, against a real server, and what a server brings."""

from __future__ import annotations

import json
import multiprocessing
import threading
import time
from pathlib import Path

import pytest
import redis

from sse_broker import Broker, BrokerConfig, LogUnavailable, Message, QueueFull, Target
from sse_broker.core.client import Client, State
from sse_broker.core.ports import PositionLost, SystemClock
from sse_broker.logs.redis import RedisLog
from sse_broker.logs.redis.scripts import APPEND
from sse_broker.testing import FakeClock
from tests.core.streams import Hub, Tab
from tests.live.conftest import need
from tests.live.redis_server import RedisServer
from tests.live.servers import free_port, until
from tests.logs.case import KEEP
from tests.logs.contract import LogContract, message

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


@pytest.fixture
def aof(tmp_path):
    """A server that survives being killed."""
    server = RedisServer(need("redis-server", "redis-server"), tmp_path / "aof", *AOF)
    yield server.start()
    server.stop()


@pytest.fixture
def plain(server):
    server.command("FLUSHALL")
    return server


def settle(tab: Tab, count: int) -> Tab:
    for _ in range(400):
        if len(tab.data) >= count:
            break
        tab.step(0.1)
    return tab


def publish(broker: Broker, data: str, seconds: float = 15) -> str:
    """Publish as a caller does that tries again, under one id, until it is recorded."""
    end = time.monotonic() + seconds
    while True:
        try:
            return broker.broadcast("e", data, id=f"own-{data}")
        except LogUnavailable:
            assert time.monotonic() < end


def test_processes_share_one_order(plain: RedisServer) -> None:
    with Hub(log=plain.url) as one, Hub(log=plain.url) as two:
        tabs = [Tab(broker).connect().read_on() for broker in (one, two)]
        threads = [
            threading.Thread(
                target=lambda b=b: [b.broadcast("e", f"{id(b)}:{n}") for n in range(100)]
            )
            for b in (one, two, Broker(log=plain.url))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seen = [settle(tab, 300).data for tab in tabs]

    assert seen[0] == seen[1]
    assert len(set(seen[0])) == 300


def test_one_connection_per_process_waits_however_many_clients(plain: RedisServer) -> None:
    with Hub(log=plain.url) as broker:
        tabs = [Tab(broker, user=n).connect() for n in range(1, 101)]
        broker.broadcast("e", "1")
        for tab in tabs:
            settle(tab, 1)
        listed = plain.command("CLIENT", "LIST").decode()

    assert listed.count("cmd=xread") == 1


def test_an_own_id_published_by_two_processes_at_one_moment_is_recorded_once(
    plain: RedisServer,
) -> None:
    logs = [RedisLog(plain.url) for _ in range(2)]
    gate = threading.Barrier(2)

    def send(log: RedisLog) -> None:
        for n in range(50):
            gate.wait(5)
            log.append(message(id=f"own-{n}"))

    threads = [threading.Thread(target=send, args=(log,)) for log in logs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert plain.command("XLEN", "{sse_broker}:log") == b":50\r\n"


def test_a_restart_loses_nothing_and_tells_nobody(aof: RedisServer) -> None:
    with Hub(log=aof.url) as broker:
        tab = Tab(broker).connect().read_on()
        for turn in range(3):
            publish(broker, f"{turn}-before")
            aof.kill()
            with pytest.raises(LogUnavailable) as caught:
                broker.broadcast("e", "while it is away")
            assert not caught.value.maybe_recorded
            aof.start()
            publish(broker, f"{turn}-after")
        settle(tab, 6)

        assert tab.data == [f"{n}-{when}" for n in range(3) for when in ("before", "after")]
        assert tab.count("reset") == tab.count("close") == 0


def test_a_publish_whose_answer_was_lost_is_recorded_once(aof: RedisServer) -> None:
    """Gate: the connection ends after Redis did it and before the answer is read."""
    log = RedisLog(aof.url)
    log.bind(KEEP, SystemClock())
    start = log.append(message("first")).position
    link = log._here().link
    run, broken = link._eval, []

    def lose_the_answer(script, keys, values):
        answer = run(script, keys, values)
        if script is APPEND and not broken:
            broken.append(answer)
            raise redis.ConnectionError("Connection closed by server.")
        return answer

    link._eval = lose_the_answer
    record = log.append(message("second"))

    assert broken
    assert [r.id for r in log.read(start, 9)] == [record.id]
    log.close()


def test_a_wiped_server_is_a_new_epoch_that_streams_are_told_of(plain: RedisServer) -> None:
    with Hub(log=plain.url) as broker:
        tab = Tab(broker).connect().read_on()
        broker.broadcast("e", "1")
        settle(tab, 1)
        plain.command("FLUSHALL")
        until(lambda: tab.step(0.05) and tab.count("reset"))
        broker.broadcast("e", "2")

        assert settle(tab, 2).data == ["1", "2"]
        assert tab.count("reset") == 1


def test_a_server_that_lost_its_end_is_a_new_epoch(plain: RedisServer) -> None:
    """What an asynchronous failover or a power cut takes away, made by hand."""
    with Hub(log=plain.url) as broker:
        tab = Tab(broker).connect().read_on()
        kept = broker.broadcast("e", "kept")
        broker.broadcast("e", "lost")
        settle(tab, 2)
        number = broker.log.locate(kept)
        place = f"{number >> 32}-{number & 0xFFFFFFFF}"
        last = f"{broker.log._here()._seen[1]}"
        plain.command("XDEL", "{sse_broker}:log", last)
        plain.command("HSET", "{sse_broker}:meta", "last", place)
        until(lambda: tab.step(0.05) and tab.count("reset"))
        broker.broadcast("e", "after")

        assert settle(tab, 3).data[-1] == "after"


def test_a_paused_server_is_waited_for_within_bounds(plain: RedisServer) -> None:
    with Hub(log=f"{plain.url}?timeout=0.4") as broker:
        tab = Tab(broker).connect().read_on()
        broker.broadcast("e", "before")
        plain.pause()
        try:
            with pytest.raises(LogUnavailable) as caught:
                broker.broadcast("e", "perhaps")
        finally:
            plain.go_on()
        assert caught.value.maybe_recorded
        publish(broker, "after")
        until(lambda: tab.step(0.05) and "after" in tab.data)

        assert [data for data in tab.data if data != "perhaps"] == ["before", "after"]
        assert tab.data.count("perhaps") <= 1
        assert tab.count("reset") == 0


def test_a_full_server_says_so_and_takes_nothing(plain: RedisServer) -> None:
    log = RedisLog(f"{plain.url}?timeout=0.1")
    log.append(message())
    plain.command("CONFIG", "SET", "maxmemory", "1")
    try:
        with pytest.raises(LogUnavailable, match="maxmemory") as caught:
            log.append(message())
    finally:
        plain.command("CONFIG", "SET", "maxmemory", "0")
    assert not caught.value.maybe_recorded
    assert plain.command("XLEN", "{sse_broker}:log") == b":1\r\n"
    log.close()


def test_a_buffer_keeps_order_over_an_outage_and_is_bounded(aof: RedisServer) -> None:
    with Hub(log=f"{aof.url}?timeout=0.2&buffer=5") as broker:
        tab = Tab(broker).connect().read_on()
        broker.broadcast("e", "0")
        aof.kill()
        ids = [broker.broadcast("e", str(n)) for n in range(1, 6)]
        with pytest.raises(QueueFull):
            broker.broadcast("e", "too much")
        aof.start()
        settle(tab, 6)
        broker.broadcast("e", "6")
        settle(tab, 7)

        assert tab.data == [str(n) for n in range(7)]
        assert [event.id for event in tab.events if event.event == "e"][1:6] == ids


def test_streams_stay_connected_while_redis_is_away_also_those_that_read_the_log(
    aof: RedisServer,
) -> None:
    with Hub(BrokerConfig(client_buffer_size=2), log=aof.url) as broker:
        live, behind = Tab(broker).connect().read_on(), Tab(broker).connect().read_on()
        for n in range(20):
            publish(broker, str(n))
        settle(live, 20)
        until(lambda: behind.reader.client.state is State.BEHIND)
        broker.log._here().recent.begin(broker.log.tail())
        aof.kill()
        chunks = [behind.reader.next(0.05) for _ in range(10)]
        for chunk in chunks:
            behind.events += behind.parser.feed(chunk or b"")
        assert b": waiting for the log\n\n" in chunks
        aof.start()

        assert settle(behind, 20).data == [str(n) for n in range(20)]
        assert behind.count("reset") == behind.count("close") == 0


def test_a_server_that_is_away_at_the_start_is_said(tmp_path) -> None:
    broker = Hub(log=f"redis://127.0.0.1:{free_port()}?timeout=0.1")
    with pytest.raises(LogUnavailable):
        broker.start()
    with pytest.raises(LogUnavailable):
        broker.broadcast("e", "x")
    with pytest.raises(LogUnavailable):
        broker.is_user_online(7)
    assert broker.get_stats().processes == 0


def test_a_broker_used_before_a_fork_has_connections_of_its_own_after_it(
    plain: RedisServer,
) -> None:
    context = multiprocessing.get_context("fork")
    with Hub(log=plain.url) as broker:
        tab = Tab(broker).connect().read_on()
        broker.broadcast("e", "1")
        child = context.Process(target=broker.broadcast, args=("e", "2"))
        child.start()
        child.join()
        broker.broadcast("e", "3")

        assert settle(tab, 3).data == ["1", "2", "3"]


@pytest.fixture
def failover(tmp_path):
    """A master, a replica and a Sentinel that watches them."""
    program = need("redis-server", "redis-server")
    master = RedisServer(program, tmp_path / "master").start()
    replica = RedisServer(
        program, tmp_path / "replica", "--replicaof", "127.0.0.1", str(master.port)
    ).start()
    conf = tmp_path / "sentinel.conf"
    conf.write_text(
        f"sentinel monitor shop 127.0.0.1 {master.port} 1\n"
        "sentinel down-after-milliseconds shop 500\nsentinel failover-timeout shop 2000\n"
    )
    sentinel = RedisServer(program, tmp_path / "sentinel")
    sentinel._command = [
        *(program, str(conf), "--sentinel", "--port", str(sentinel.port)),
        *("--bind", "127.0.0.1", "--dir", str(tmp_path)),
    ]
    sentinel.start()
    until(lambda: b"master_link_status:up" in replica.command("INFO", "replication"))
    until(lambda: f"{replica.port}".encode() in sentinel.command("SENTINEL", "replicas", "shop"))
    yield master, replica, sentinel
    for server in (sentinel, replica, master):
        server.stop()


def test_a_failover_is_followed_and_every_stream_is_told(failover) -> None:
    master, replica, sentinel = failover
    url = f"redis+sentinel://127.0.0.1:{sentinel.port}/shop"
    with Hub(log=url) as broker:
        tab = Tab(broker).connect().read_on()
        publish(broker, "before")
        settle(tab, 1)
        until(lambda: replica.command("XLEN", "{sse_broker}:log") == b":1\r\n")
        # long enough for the replica to count as older than the last look at the master
        until(lambda: b"uptime_in_seconds:0" not in replica.command("INFO", "server"))
        until(lambda: _seen_after_start(master, replica), 15)
        master.kill()
        publish(broker, "after", 30)
        until(lambda: tab.step(0.05) and tab.count("reset"), 15)

        publish(broker, "and-on")
        until(lambda: tab.step(0.05) and "and-on" in tab.data)


def _seen_after_start(master: RedisServer, replica: RedisServer) -> bool:
    checked = master.command("HGET", "{sse_broker}:meta", "checked").split(b"\r\n")[1]
    uptime = replica.command("INFO", "server").partition(b"uptime_in_seconds:")[2]
    started = time.time() - int(uptime.split(b"\r\n")[0])
    return int(checked) / 1000 > started + 1


@pytest.fixture
def cluster(tmp_path):
    """One node that has all slots of a cluster."""
    program = need("redis-server", "redis-server")
    server = RedisServer(program, tmp_path / "node", "--cluster-enabled", "yes").start()
    server.command("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
    until(lambda: b"cluster_state:ok" in server.command("CLUSTER", "INFO"))
    yield server
    server.stop()


def test_a_cluster_is_a_log_like_any_other(cluster: RedisServer) -> None:
    with Hub(log=f"redis+cluster://127.0.0.1:{cluster.port}") as broker:
        tab = Tab(broker, user=7).connect().read_on()
        for n in range(10):
            broker.broadcast("e", str(n), id=f"own-{n}")
        broker.broadcast("e", "3", id="own-3")
        settle(tab, 10)
        tab.leave()
        broker.broadcast("e", "10")
        settle(tab.connect(), 11)
        broker.revoke("t1")

        assert tab.data == [str(n) for n in range(11)]
        assert broker.log.roster.is_revoked("t1")
        assert broker.is_user_online(7)


def test_an_unix_socket_is_a_way_to_it(tmp_path) -> None:
    program = need("redis-server", "redis-server")
    server = RedisServer(program, tmp_path / "s", "--unixsocket", str(tmp_path / "redis.sock"))
    server.start()
    try:
        log = RedisLog(f"unix://{tmp_path}/redis.sock?prefix=shop")
        log.append(message())
        assert server.command("XLEN", "{shop}:log") == b":1\r\n"
        log.close()
    finally:
        server.stop()


def test_what_the_first_release_wrote_is_brought_up_to_date(tmp_path: Path) -> None:
    """On a server of its own: threads of tests before this one may still ask the shared one."""
    server = RedisServer(need("redis-server", "redis-server"), tmp_path / "redis").start()
    try:
        _bring_up_to_date(server)
    finally:
        server.stop()


def _bring_up_to_date(plain: RedisServer) -> None:
    client = redis.Redis.from_url(plain.url)
    written = json.loads(
        (Path(__file__).parents[1] / "logs/data/first_release_redis.json").read_text()
    )
    ids = written.pop("ids")
    for name, value in written.items():
        key = name.replace("sse_broker", "old")  # which no test before this one has used
        ((kind, content),) = value.items()
        if kind == "hash":
            client.hset(key, mapping=content)
        elif kind == "zset":
            client.zadd(key, content)
        elif kind == "set":
            client.sadd(key, *content)
        else:
            for place, fields in content:
                client.xadd(key, fields, id=place)
    logs = [RedisLog(f"{plain.url}?prefix=old") for _ in range(2)]
    for log in logs:
        log.bind(KEEP, FakeClock(unix_time=1_795_635_200.0))
        after = log.locate("order-7")
        assert [one.message.data for one in log.read(after, 9) if one.frame][:3] == [
            '{"n":2}',
            "drei ä\nzwei",
            "last",
        ]
        for old in (ids[0], ids[3], ids[4]):
            with pytest.raises(PositionLost, match="unknown"):
                log.locate(old)
        assert log.roster.is_revoked("gone")
        again = Message(Target.USER, "one", "e", user_id="u", tenant_id="A", id="order-7")
        assert log.append(again).position == after
    other = Message(Target.USER, "one", "e", user_id="u", tenant_id="B", id="order-7")
    assert logs[0].append(other).position > after
    assert not client.exists("{old}:ids")
    for log in logs:
        log.close()


def linked(entry: object):
    """Return what puts an entry at the end of the log, as one of ours stands there."""

    def put(client, meta: dict[bytes, bytes]) -> None:
        fields = {"p": meta[b"last"], "c": meta[b"epoch"], "e": entry}
        client.hset("{sse_broker}:meta", "last", client.xadd("{sse_broker}:log", fields))

    return put


POISON = {
    "a stranger's fields": lambda client, _: client.xadd("{sse_broker}:log", {"hello": "world"}),
    "an epoch that is no text": lambda client, meta: client.xadd(
        "{sse_broker}:log", {b"c": b"\xff\xfe", b"p": meta[b"last"], b"e": b"x"}
    ),
    "a place that is none": lambda client, meta: client.xadd(
        "{sse_broker}:log", {"c": meta[b"epoch"], "p": "garbage", "e": "{}"}
    ),
    "an entry from the future": lambda client, _: client.xadd(
        "{sse_broker}:log", {"hello": "world"}, id="9999999999999-0"
    ),
    "no JSON": linked(b"\x80not json\r\n\x1b[31m"),
    "deep JSON": linked("[" * 200_000),
    "a reserved event": linked(
        json.dumps({"target": "broadcast", "event": "close", "data": "x", "created_at": 1})
    ),
    "a smuggled field": linked(
        json.dumps({"target": "broadcast", "event": "a\nid: 9", "data": "x", "created_at": 1})
    ),
    "limits that are none": lambda client, _: client.hset("{sse_broker}:meta", "limits", "a:b"),
    "an end that is none": lambda client, _: client.hset("{sse_broker}:meta", "last", "garbage"),
    "own ids of another type": lambda client, _: (
        client.delete("{sse_broker}:own"),
        client.set("{sse_broker}:own", "x"),
    ),
    "presence that is no JSON": lambda client, _: client.hset("{sse_broker}:presence", "v", "x"),
    "a process that is no JSON": lambda client, _: client.hset("{sse_broker}:processes", "v", "x"),
}


@pytest.mark.parametrize("poison", POISON)
def test_poison_in_redis_is_passed_over_and_said(plain: RedisServer, poison: str) -> None:
    client = redis.Redis.from_url(plain.url)
    with Hub(log=plain.url) as broker:
        tab = Tab(broker).connect().read_on()
        broker.broadcast("e", "before")
        settle(tab, 1)

        POISON[poison](client, client.hgetall("{sse_broker}:meta"))
        publish(broker, "after")
        publish(broker, "after2")
        until(lambda: tab.step(0.05) and tab.data[-1:] == ["after2"])

        # Nothing is missed without a word.
        assert tab.data in (["before", "after", "after2"], ["before", "after2"])
        assert len(tab.data) == 3 or tab.count("reset")
        until(lambda: broker.health()["log"])
        until(lambda: broker.get_online_users() == ["1"])
        assert not broker.is_user_online("v")
        fresh = Tab(broker, user=2).connect().read_on()
        assert fresh.count("welcome") == 1


def test_the_first_message_after_a_flush_is_delivered(plain: RedisServer) -> None:
    with Hub(log=plain.url) as broker:
        tab = Tab(broker).connect().read_on()
        broker.broadcast("e", "before")
        settle(tab, 1)
        plain.command("FLUSHALL")
        broker.broadcast("e", "first after")
        broker.broadcast("e", "second after")

        assert settle(tab, 3).data == ["before", "first after", "second after"]
        assert tab.count("reset") == 1


def test_retained_fields_that_somebody_else_wrote_stop_nothing(plain: RedisServer) -> None:
    log = RedisLog(plain.url)
    log.append(Message(Target.TOPIC, "good", "e", topic="a", retain=True))
    client = redis.Redis.from_url(plain.url)
    bad = {"\ntopic\na\nno value": "", "\ntopic\na\nx": "garbage", "\ntopic\na": "1-1\n\n{}"}
    bad["\ntopic\na\nunreadable"] = "5-5\n\n{"
    for field, value in bad.items():
        client.zadd("{sse_broker}:retained:names", {field: 0})
        if value:
            client.hset("{sse_broker}:retained", field, value)

    for topics in (["a"], ["*"]):
        found = log.retained(Client(1, topics=topics))
        assert [one.message.data for one in found] == ["good"]
    log.close()
