"""Why a user got a message, or did not; and who listens to a topic, over all processes."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import time

import pytest

from sse_broker import Broker, BrokerConfig, Identity, InvalidTopic, InvalidUserID, signals
from sse_broker.core.latency import BOUNDS, Latency
from sse_broker.core.listeners import Listeners
from sse_broker.core.ports import Record
from sse_broker.testing import FakeClock
from sse_broker.wire.message import Message, Target
from tests.core.streams import Hub, Tab

TRACED = BrokerConfig(trace_size=100)


@pytest.fixture(params=["memory", "sqlite"])
def hub(request, tmp_path):
    url = "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/log.db"
    with Hub(TRACED, log=url) as broker:
        yield broker


def report(broker: Broker) -> None:
    broker.streams.here().presence.report(broker.streams.clock.monotonic())


def explain(broker: Broker, id: str, user: object = 7):
    report(broker)
    return broker.explain(id, user_id=user)


def read(tab: Tab, count: int = 1) -> None:
    for _ in range(100):
        if len(tab.data) >= count:
            break
        tab.step(0.1)
    assert len(tab.data) >= count


def test_a_message_that_was_written_says_when(hub) -> None:
    tab = Tab(hub, user=7).connect().read_on()
    sent = hub.send_to_user(7, "e", "x")
    read(tab)

    found = explain(hub, sent)

    assert found.verdict == "written"
    (stream,) = found.streams
    assert stream.written_at >= stream.queued_at
    assert "ms after it was sent" in str(found)
    assert (found.event, found.target) == ("e", "user")


def test_a_message_for_somebody_else(hub) -> None:
    Tab(hub, user=7).connect().read_on()

    assert explain(hub, hub.send_to_user(8, "e", "x")).verdict == "other_user"


def test_a_user_who_was_never_there(hub) -> None:
    found = explain(hub, hub.send_to_user(7, "e", "x"))

    assert found.verdict == "not_connected"
    assert found.streams == ()


def test_a_user_who_had_left_before(hub) -> None:
    tab = Tab(hub, user=7).connect().read_on()
    hub.streams.forget(tab.reader.client, "client_gone")

    found = explain(hub, hub.send_to_user(7, "e", "x"))

    assert found.verdict == "not_connected"
    assert "ended" in found.text
    assert "client_gone" in found.text


def test_a_topic_that_is_almost_the_one_that_is_subscribed(hub) -> None:
    Tab(hub, user=7, topics=["orders:17", "news"]).connect().read_on()

    found = explain(hub, hub.send_to_topic("order:17", "e", "x"))

    assert found.verdict == "not_subscribed"
    assert "did you mean orders:17?" in found.text


def test_another_tenant(hub) -> None:
    Tab(hub, user=7, topics=["t"], tenant="acme").connect().read_on()

    for tenant in (None, "other"):
        found = explain(hub, hub.send_to_topic("t", "e", "x", tenant_id=tenant))
        assert found.verdict == "other_tenant"
        assert "acme" in found.text


def test_a_topic_that_the_token_does_not_grant(hub) -> None:
    tab = Tab(hub, user=7, topics=["*"])
    tab.identity = Identity(7, topics=["news"])
    tab.connect().read_on()

    assert explain(hub, hub.send_to_topic("orders", "e", "x")).verdict == "not_allowed"


def test_a_message_that_waits_for_a_reader_that_takes_nothing(hub) -> None:
    tab = Tab(hub, user=7).connect().read_on()
    sent = hub.send_to_user(7, "e", "x")
    for _ in range(200):
        if tab.reader.client.queue.qsize():
            break
        time.sleep(0.01)

    assert explain(hub, sent).verdict == "waiting"


def test_a_message_that_came_in_a_replay(hub) -> None:
    tab = Tab(hub, user=7).connect().read_on()
    tab.leave()
    sent = hub.send_to_user(7, "e", "x")
    tab.connect()
    read(tab)

    found = explain(hub, sent)

    assert found.verdict in ("replayed", "not_connected")
    assert "after" in found.text or "later" in found.text


def test_a_message_that_a_reset_covers(hub) -> None:
    sent = hub.send_to_user(7, "e", "x")
    tab = Tab(hub, user=7)
    tab.last_event_id = "000000000000-foreign"
    tab.connect().read_on()

    found = explain(hub, sent)

    assert found.verdict == "reset"
    assert "reset" in found.text


def test_a_message_that_a_full_queue_dropped(tmp_path) -> None:
    config = dataclasses.replace(TRACED, client_buffer_size=1, overflow="drop_oldest")
    with Hub(config) as broker:
        tab = Tab(broker, user=7).connect().read_on()
        ids = [broker.send_to_user(7, "e", str(n)) for n in range(3)]
        tab.read_on()

        assert explain(broker, ids[0]).verdict == "dropped"


def test_without_a_trace_it_says_how_to_have_one() -> None:
    with Hub() as broker:
        Tab(broker, user=7).connect().read_on()
        found = explain(broker, broker.send_to_user(7, "e", "x"))
        assert broker.streams.here().trace is None

    assert found.verdict == "not_traced"
    assert "SSE_TRACE_SIZE" in found.text


@pytest.mark.parametrize("id", ["nonsense", "000000000000-1", "x" * 300, ""])
def test_an_id_that_the_log_does_not_know(hub, id) -> None:
    found = explain(hub, id)

    assert found.verdict == "unknown_message"
    assert found.text


def test_a_user_id_is_checked(hub) -> None:
    with pytest.raises(InvalidUserID):
        hub.explain("x", user_id="")


def test_the_trace_is_bounded() -> None:
    with Hub(BrokerConfig(trace_size=3)) as broker:
        tab = Tab(broker, user=7).connect()
        ids = [broker.send_to_user(7, "e", str(n)) for n in range(10)]
        tab.read_on()
        trace = broker.streams.here().trace
        assert [trace.of(one) is not None for one in ids] == [False] * 7 + [True] * 3


def test_listeners_are_counted_with_patterns_and_tenants(hub) -> None:
    assert hub.count_listeners("doc:1") == 0
    Tab(hub, user=1, topics=["doc:1"]).connect().read_on()
    Tab(hub, user=1, topics=["doc:*"]).connect().read_on()
    Tab(hub, user=2, topics=["doc:1"], tenant="acme").connect().read_on()
    report(hub)

    assert hub.count_listeners("doc:1") == 2
    assert hub.count_listeners("doc:1", tenant_id="acme") == 1
    assert hub.count_listeners("doc:1", tenant_id="other") == 0
    with pytest.raises(InvalidTopic):
        hub.count_listeners("doc:*")


CHILD = """
import sys
from sse_broker import Broker, BrokerConfig
from tests.core.streams import Tab
broker = Broker(BrokerConfig(trace_size=10), log=sys.argv[1])
broker.start()
tab = Tab(broker, user=7, topics=["doc:1"]).connect().read_on()
broker.streams.here().presence.report(broker.streams.clock.monotonic())
print("ready", flush=True)
sys.stdin.read()
broker.stop(timeout=0)
"""


def test_other_processes_answer(tmp_path) -> None:
    url = f"sqlite:///{tmp_path}/log.db"
    command = [sys.executable, "-c", CHILD, url]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        assert child.stdout.readline() == "ready\n"
        asking = Broker(log=url)

        assert asking.count_listeners("doc:1") == 1
        found = asking.explain(asking.send_to_topic("doc:2", "e", "x"), user_id=7)

        assert found.verdict == "not_subscribed"
        assert "doc:1" in found.text
        assert found.missing == 0
    finally:
        child.stdin.close()
        child.wait(10)
        child.stdout.close()


def test_latency_is_counted_for_each_stream_that_a_batch_has() -> None:
    clock = FakeClock(unix_time=time.time() + 1)
    latency = Latency(clock)
    record = Record(1, "a-1", Message(Target.BROADCAST, "x"))

    latency.note(record, 10)
    clock.advance(-3600)
    latency.note(record, 1)  # a clock of another machine that is ahead

    assert sum(latency.buckets) == 11
    assert latency.buckets[0] == 1
    assert latency.quantile(0.5) in BOUNDS
    assert 0.5 < latency.quantile(0.5) <= 2.5


def test_a_change_of_listeners_is_told_for_a_minute_after_the_question(hub) -> None:
    told: list[tuple[str, object, int]] = []

    def hear(sender: Broker, topic: str, tenant_id: object, count: int) -> None:
        told.append((topic, tenant_id, count))

    listeners = hub.streams.listeners
    with signals.listeners_changed.connected_to(hear, sender=hub):
        tab = Tab(hub, user=1, topics=["doc:1"]).connect().read_on()
        report(hub)
        assert hub.count_listeners("doc:1") == 1
        listeners.look()
        assert told == []
        hub.streams.forget(tab.reader.client, "client_gone")
        listeners.look()
        listeners.look()
        assert told == [("doc:1", None, 0)]


def test_topics_that_nobody_asks_about_any_more_are_not_watched() -> None:
    asked: list[object] = []
    clock = FakeClock()
    watched = Listeners(None, lambda what, about: (asked.append(about) or {"p": [3]}, 0), clock)
    assert watched.count("a", None) == 3

    clock.advance(61)
    watched.tick()

    assert not watched._counts
    assert len(asked) == 1
